"""Stand-ins for what cannot be executed here: they pass through code, never decide for it.

A stand-in may be imported, subclassed and handed on. Whatever would need its value (a call, a
branch, an iteration, arithmetic) raises, so that no result ever rests on one.
"""

import threading
from collections.abc import Callable
from typing import Any, NoReturn

_LOCAL = threading.local()


class StandInError(TypeError):
    """Code needed the value of something that was replaced; the message names it."""


def _refusing(what: str) -> "Callable[[StandIn], NoReturn]":
    def refuse(self: "StandIn") -> NoReturn:
        self._refuse(what)

    return refuse


class loading:  # noqa: N801 (a `with` word; a generator's would cost as much as what it guards)
    """Definitions are being executed: decorators and factories that were replaced may be called."""

    def __enter__(self) -> None:
        _LOCAL.loading = getattr(_LOCAL, "loading", 0) + 1

    def __exit__(self, *caught: object) -> None:
        _LOCAL.loading -= 1


class StandInBase:
    """What a class inherits from when its real base was replaced."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.__dict__.update(kwargs)

    def post_init(self) -> None:
        """A hook that bases of models offer."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__()


class StandIn:
    """Something named `path` that is not executable here; `why` says what got in the way."""

    def __init__(self, path: str, *, why: str = "") -> None:
        self.__dict__["_path"] = path
        self.__dict__["_why"] = why

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._path}.{name}", why=self._why)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """While definitions load, a stand-in, too; later there is nothing that could be called."""
        if not getattr(_LOCAL, "loading", 0):
            self._refuse("call")
        return StandIn(f"{self._path}()", why=self._why)

    def _refuse(self, what: str) -> NoReturn:
        why = f" ({self._why})" if self._why else ""
        raise StandInError(f"the code would {what} {self._path}, which is replaced here{why}")

    def __getitem__(self, key: object) -> Any:
        return StandIn(f"{self._path}[]", why=self._why)

    def __setitem__(self, key: object, value: object) -> None:
        return None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *caught: object) -> None:
        return None

    def __or__(self, other: object) -> Any:
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return () if any(isinstance(base, type) for base in bases) else (StandInBase,)

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __subclasscheck__(self, subclass: type) -> bool:
        return False

    __bool__ = _refusing("decide on")
    __iter__ = _refusing("take apart")
    __index__ = _refusing("count with")
    __len__ = _refusing("measure")

    def __repr__(self) -> str:
        return f"<stand-in for {self._path}>"
