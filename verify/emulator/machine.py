"""The machine the release believes it runs on: one NVIDIA GPU a rank, torch.distributed set up.

Everything here changes torch for the whole process, so only a child process may call it.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy
import torch

from verify.emulator.groups import ProcessGroup
from verify.emulator.ranks import current_rank
from verify.emulator.witness import embed, project

COMPUTE_CAPABILITY = (9, 0)
_TENSOR_TO: Callable[..., Any] = torch.Tensor.to
_SET_ATTRIBUTE: Callable[..., None] = torch.nn.Module.__setattr__
# never a parameter, a buffer or a module
_PLAIN = frozenset({bool, float, int, str, list, dict, tuple, type(None), torch.dtype})
_HALF = (torch.float16, torch.bfloat16)
_FACTORIES = ("tensor", "empty", "zeros", "ones", "full", "arange", "rand", "randn")


def imitate() -> None:
    """Put the machine in place of what torch would find here."""
    _replace(
        torch.cuda,
        is_available=lambda: True,
        device_count=lambda: 8,
        current_device=lambda: 0,
        set_device=lambda device: None,
        get_device_capability=lambda device=None: COMPUTE_CAPABILITY,
        get_device_name=lambda device=None: "imitated",
        current_stream=lambda device=None: _Stream(),
        default_stream=lambda device=None: _Stream(),
        stream=lambda stream: nullcontext(),
        Stream=_Stream,
        Event=_Stream,
        synchronize=lambda device=None: None,
        empty_cache=lambda: None,
        is_current_stream_capturing=lambda: False,
    )
    _replace(
        torch, compile=_compile, **{name: _on_cpu(getattr(torch, name)) for name in _FACTORIES}
    )
    # weights are never loaded: what would be whatever lay in memory is zero
    _replace(torch, empty=_on_cpu(_untouched))
    _replace(torch, mm=lambda a, b, *, out_dtype=None, matmul=torch.mm: matmul(a, b))
    _replace(torch.nn.Module, __setattr__=_set_attribute)
    _replace(torch.nn.Linear, reset_parameters=lambda module: None)
    # transformers adds it to every logger
    _replace(logging.Logger, warning_once=logging.Logger.warning)
    _replace(torch.nn.Linear, forward=lambda module, x: project(x, module.out_features))
    _replace(torch.nn.Embedding, forward=lambda module, ids: embed(ids))
    _replace(torch.nn.LayerNorm, forward=lambda module, x: x)
    _replace(torch.Tensor, to=_on_cpu(_TENSOR_TO), cuda=lambda tensor, *args: tensor)
    _replace(torch.Tensor, record_stream=lambda tensor, stream: None)
    _replace(torch.Tensor, half=torch.Tensor.float, bfloat16=torch.Tensor.float)
    _replace(
        torch.distributed,
        is_initialized=lambda: True,
        is_available=lambda: True,
        get_backend=lambda group=None: "nccl",
        get_rank=_get_rank,
        get_world_size=lambda group=None: group.size() if group else current_rank().world_size,
        get_process_group_ranks=lambda group: list(group.ranks),
        all_reduce=_all_reduce,
        barrier=lambda group=None: None,
        new_group=lambda ranks, **options: ProcessGroup(ranks, current_rank().rank),
    )


class _Stream(SimpleNamespace):
    """A stream or event: everything on it has happened already."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(cuda_stream=0)

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *caught: object) -> None:
        return None

    def wait_stream(self, stream: object) -> None:
        """Nothing to wait for."""

    wait_event = record = synchronize = wait_stream

    def record_event(self, event: object = None) -> "_Stream":
        """An event that has happened."""
        return self


def _replace(owner: Any, **values: object) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


def _set_attribute(module: Any, name: str, value: Any) -> None:
    """As torch sets an attribute; at once where it is none of those that torch keeps books on."""
    own = module.__dict__
    # written out: it is asked for every attribute of every layer
    if (
        type(value) in _PLAIN
        and name not in own.get("_parameters", ())
        and name not in own.get("_buffers", ())
        and name not in own.get("_modules", ())
    ):
        object.__setattr__(module, name, value)
    else:
        _SET_ATTRIBUTE(module, name, value)


def _compile(model: Any = None, **options: object) -> Any:
    return model if callable(model) else lambda function: function


def _untouched(
    *size: Any, dtype: torch.dtype | None = None, device: Any = None, **options: Any
) -> torch.Tensor:
    """Zeros that take no memory until they are written."""
    given = options.get("size", size)
    shape = torch.Size(given[0] if given and not isinstance(given[0], int) else given)
    plain = dtype or torch.get_default_dtype()
    if device is not None and torch.device(device).type == "meta":
        return torch.zeros(shape, dtype=plain, device=device)
    if not shape.numel():
        return torch.zeros(shape, dtype=plain)
    memory = numpy.zeros(shape.numel() * plain.itemsize, dtype=numpy.uint8)
    return torch.from_numpy(memory).view(plain).reshape(shape)


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, wherever and however small the caller wants the tensor."""

    def call(*args: Any, **options: Any) -> Any:
        options.pop("pin_memory", None)
        options = {name: _here(value) for name, value in options.items()}
        return function(*map(_here, args), **options)

    return call


def _here(value: Any) -> Any:
    """What stands for a device or a type of number: the CPU, and no half precision.

    Counts must come out exact.
    """
    if isinstance(value, torch.dtype) and value in _HALF:
        return torch.float32
    is_device = isinstance(value, str | torch.device) and str(value).startswith("cuda")
    return "cpu" if is_device else value


def _get_rank(group: ProcessGroup | None = None) -> int:
    return group.rank() if group else int(current_rank().rank)


def _all_reduce(
    tensor: torch.Tensor, op: Any = None, group: ProcessGroup | None = None, async_op: Any = None
) -> None:
    rank = current_rank()
    parts = rank.all_gather(tensor.unsqueeze(0), group=group.ranks if group else None)
    name = str(op).rpartition(".")[2]
    if name in ("MIN", "BAND"):
        tensor.copy_(parts.amin(0))
    elif name == "MAX":
        tensor.copy_(parts.amax(0))
    else:
        tensor.copy_(parts.sum(0))
