"""Sources of the engines that can be read: what may be fetched, and which package is looked for."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from verify.engines.ledger import Ledger
from verify.engines.registry import READ, distributions
from verify.engines.runtime import Runtime
from verify.source import fetch as fetching
from verify.source import source
from verify.source.source import Package, SourceTree

if TYPE_CHECKING:
    from verify.engines.reading import Reading


def package() -> Package:
    """What is looked for in a source."""
    found: Package = import_module(f"verify.engines.{READ}.package").PACKAGE
    return found


def reading() -> "Reading":
    """What the checks that read a source are told of its engine."""
    found: Reading = import_module(f"verify.engines.{READ}.reading").READING
    return found


def ledger() -> Ledger:
    """The steps of its layers, which `prove` is told; quick to import."""
    found: Ledger = import_module(f"verify.engines.{READ}.ledger").LEDGER
    return found


def runtime() -> Runtime:
    """The names under which it knows what `replay` executes; quick to import."""
    found: Runtime = import_module(f"verify.engines.{READ}.runtime").RUNTIME
    return found


def open_source(text: str, *, below: str | None = None) -> SourceTree:
    """Open SOURCE; see `verify.source.source`. Raises `VerifyError`."""
    return source.open_source(text, package(), below=below)


def fetch(text: str) -> Path:
    """The wheel that satisfies a requirement of an engine. Raises `VerifyError`."""
    return fetching.fetch(text, distributions())
