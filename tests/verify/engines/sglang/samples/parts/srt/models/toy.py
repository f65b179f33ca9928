"""A toy model: one collective of each kind, each of this rank's numbers."""

from srt.distributed import comm


def collectives(values, counts):
    comm.total(counts)
    summed = comm.total(values.clone())
    return summed, comm.gathered(values), comm.scattered(values)
