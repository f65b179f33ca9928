"""The engines that there are: a folder each, whose `serving` package offers an `ENGINE`."""

from importlib import import_module

from verify.engines.engine import Engine

FOLDERS = ("sglang", "vllm")


def engines() -> tuple[Engine, ...]:
    """Every engine that can be served."""
    # by name, so that no check imports an engine
    return tuple(import_module(f"verify.engines.{name}.serving").ENGINE for name in FOLDERS)


def distributions() -> tuple[str, ...]:
    """The names under which an engine may be fetched."""
    return tuple(name for engine in engines() for name in engine.distributions)
