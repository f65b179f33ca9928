_WORLD = None
_TP = None


class GroupCoordinator:
    def __init__(self, group_ranks, local_rank, backend):
        raise RuntimeError("needs GPUs")


def init_distributed_environment(world_size, rank, local_rank, backend):
    global _WORLD
    _WORLD = GroupCoordinator([list(range(world_size))], local_rank, backend)


def initialize_model_parallel(tensor_model_parallel_size=1):
    global _TP
    ranks = [list(range(tensor_model_parallel_size))]
    _TP = GroupCoordinator(ranks, _WORLD.local_rank, "nccl")


def get_tp_group():
    return _TP
