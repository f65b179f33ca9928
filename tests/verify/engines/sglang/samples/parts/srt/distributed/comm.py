"""Plumbing of a toy engine: its callers are the sites."""

import torch.distributed as dist


def total(tensor, group=None):
    dist.all_reduce(tensor, group=group)
    return tensor


def gathered(tensor):
    out = tensor.new_empty(2 * tensor.shape[0])
    dist.all_gather_into_tensor(out, tensor)
    return out


def scattered(tensor):
    out = tensor.new_empty(tensor.shape[0] // 2)
    dist.reduce_scatter_tensor(out, tensor)
    return out
