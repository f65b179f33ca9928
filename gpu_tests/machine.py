"""What a job ran on: figures mean nothing without."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from verify.report.report import Json


def describe(backend: str) -> dict[str, Json]:
    """The device and the versions of what computes on it."""
    machine: dict[str, Json] = {"python": platform.python_version(), "torch": torch.__version__}
    if backend != "nccl":
        return {**machine, "device": f"{platform.machine()} CPU"}
    return {
        **machine,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        **_flashinfer(),
        "device": torch.cuda.get_device_name(0),
        "gpus": torch.cuda.device_count(),
    }


def _flashinfer() -> dict[str, Json]:
    try:
        return {"flashinfer": version("flashinfer-python")}
    except PackageNotFoundError:
        return {}
