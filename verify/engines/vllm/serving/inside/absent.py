"""A package that is not installed, importable all the same, and loud where anything of it is used.

Model files of vLLM import torchvision for pictures, and have a language model that needs none.
Names may be imported, looked up and inherited from; a call or an instance raises.

Runs inside the engine's Python (standard library only).
"""

import importlib.machinery
import sys
from types import ModuleType
from typing import Any


class Absent(type):
    """A name of an absent package, or a class that inherits from one."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{cls.__name__}.{name}", (), {})

    def __call__(cls, *positional: Any, **named: Any) -> Any:
        """No instance. Raises NotImplementedError with the name."""
        raise NotImplementedError(f"{cls.__name__}: not installed here (this tool's absent.py)")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}", (), {})


class _Finder:
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] != self._package:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def stand_in(package: str) -> None:
    """From now on `package` and all below it can be imported, where no installed one is found."""
    sys.meta_path.append(_Finder(package))
