"""Modules that exist only as CUDA builds, or that no case needs, as loud mocks.

`install()` comes before the engine's first import. Every attribute of a mock exists: a
capitalised name is an empty class, any other a function that raises when it is called, so that a
kernel that is really reached is never silent.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

# what no case needs
UNUSED = (
    "decord2",
    "torch_memory_saver",
    "torchao",
    "quack",
    "flash_attn",
    "soundfile",
    "av",
    "deep_gemm",
    "deep_ep",
)
STUBBED = ("sgl_kernel", "torchvision", "torchaudio", *UNUSED)
# beside GPUs the engine has its own kernels
ON_GPUS = (*UNUSED, "decord")
# the engine has a fallback of its own for these
ABSENT = frozenset({"sgl_kernel.scalar_type"})


class StubReachedError(RuntimeError):
    """A stubbed kernel was called: what was asked for cannot run here."""


class _Names(type):
    """Classes whose attributes are their own names, for enumerations that are read on import."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__module__}.{cls.__name__}.{name}"


def _attribute(full: str) -> Any:
    module, _, last = full.rpartition(".")
    if last[:1].isupper():
        return _Names(last, (), {"__module__": module})

    def reached(*positional: Any, **named: Any) -> Any:
        decorates = len(positional) == 1 and callable(positional[0]) and not named
        if decorates:
            return positional[0]
        raise StubReachedError(f"{full} was called, a kernel that this platform lacks")

    reached.__name__, reached.__qualname__ = last, full
    return reached


class _Mock(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        value = _attribute(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = fullname.split(".", maxsplit=1)[0]
        if top in self._names and fullname in ABSENT:
            raise ModuleNotFoundError(fullname, name=fullname)
        if top in self._names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _Mock(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        # a version that satisfies every "at least"
        module.__version__ = "99.0"  # type: ignore[attr-defined]
        module.__file__ = __file__


def install_unused() -> None:
    """Put the mocks of `ON_GPUS` before everything else that is importable, and no others."""
    sys.meta_path.insert(0, _Finder(ON_GPUS))


def install() -> None:
    """Put the mocks before everything else that is importable, then import torch."""
    sys.meta_path.insert(0, _Finder(STUBBED))
    install_operators(importlib.import_module("torch._ops")._OpNamespace)


def install_operators(namespace: Any) -> None:
    """CPU operators of `sgl_kernel` that torch lacks, as loud mocks: models bind them early.

    `namespace` is the class of ``torch.ops.sgl_kernel``. A name that torch knows is untouched.
    """
    original = namespace.__getattr__

    def attribute(self: Any, name: str) -> Any:
        try:
            return original(self, name)
        except AttributeError:
            if self.name != "sgl_kernel" or not name.endswith("_cpu"):
                raise
            return _attribute(f"torch.ops.sgl_kernel.{name}")

    namespace.__getattr__ = attribute
