"""The engines that there are: a folder each.

Its `serving` package offers an `ENGINE`; where its source can be read too, `library` a `LIBRARY`.
"""

from importlib import import_module

from verify.engines.engine import Engine
from verify.interpreter.library import Library

# whose source is scanned, proved and replayed
READ = "sglang"
FOLDERS = ("sglang", "vllm")


def engines() -> tuple[Engine, ...]:
    """Every engine that can be served."""
    # by name, so that no check imports an engine
    return tuple(import_module(f"verify.engines.{name}.serving").ENGINE for name in FOLDERS)


def library(package: str) -> Library:
    """What the interpreter is told of a source's package."""
    found: Library = import_module(f"verify.engines.{package}.library").LIBRARY
    return found


def distributions() -> tuple[str, ...]:
    """The names under which an engine may be fetched."""
    return tuple(name for engine in engines() for name in engine.distributions)
