"""The drive for GPUs with the engine as it is imported on CPU ranks: its processes, and no GPU."""

import os

from verify.engines.sglang.serving.inside import drive, gpu

gpu.import_engine = drive.load
gpu.devices = lambda: ["no GPU"] * int(os.environ["PRETENDED_GPUS"])
gpu.COLLECTIVES = "corrupt"

CAGED = gpu.CAGED
load, prepare, rank = gpu.load, gpu.prepare, gpu.rank
