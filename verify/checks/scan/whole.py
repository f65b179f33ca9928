"""Files that Python itself could not compile: what is behind the fault was never looked at.

A file is cut and its parts are parsed when asked for, so that a merge marker or a torn bracket
changes where a class ends and nothing notices. Every model file, every file of the layers that one
imports and every file that says what the server refuses is therefore compiled once; nothing is
executed.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from verify.checks.scan.side_by_side import side_by_side
from verify.checks.scan.sites import GuardedSite
from verify.engines.sources import reading
from verify.interpreter.index import Index
from verify.report.report import NOT_ANALYSED, Finding

ENGINE = reading()
MODELS = ENGINE.library.models


def broken(index: Index) -> dict[str, str]:
    """Path and reason of every file that holds or may hold a reduction and is not Python."""
    with checked(index) as faults:
        return faults()


@contextmanager
def checked(index: Index) -> Iterator[Callable[[], dict[str, str]]]:
    """Begin to look for the files that hold or may hold a reduction and are not Python.

    What this gives, called, does the rest and returns path and reason of each.
    """
    named = {*index.tree.under(MODELS), *imported(index), *_refusing(index)}
    paths = sorted(named - index.unread.keys())
    with side_by_side(lambda path: _fault(index, path), paths, what="files checked") as faults:
        yield lambda: dict(_unsaid(index, zip(paths, faults(), strict=True)))


def _unsaid(index: Index, faults: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """The faults of which nobody who looked into the file has said that it is not Python."""
    said = [line for line in index.unread.values() if "not Python" in line]
    for path, why in faults:
        if why is not None and not any(path in line for line in said):
            yield path, why


def imported(index: Index) -> Iterator[str]:
    """The files under layers/ and distributed/ that a model file names."""
    named = {
        name
        for path in index.tree.under(MODELS)
        if (module := index.module(path)) is not None
        for name in ENGINE.files.imported.findall(module.text)
    }
    known = frozenset(index.tree.paths)
    for base in (name.replace(".", "/") for name in sorted(named)):
        yield from known & {f"{base}.py", f"{base}/__init__.py"}


def _refusing(index: Index) -> Iterator[str]:
    """The files from which is read what the server refuses and sets."""
    files = ENGINE.files
    for folder in (files.arguments, files.registries, f"{ENGINE.library.layers}moe/"):
        yield from index.tree.under(folder)
    yield from {files.server, files.environment}.intersection(index.tree.paths)


def _fault(index: Index, path: str) -> str | None:
    """Why the file cannot be compiled, None if it can."""
    module = index.module(path)
    if module is None:
        return index.unread[path]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(module.text, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{path}:{error.lineno or 1}: not Python ({error.msg})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{path}: not Python that can be compiled ({error})"
    return None


def unresolved(site: GuardedSite, why: str) -> Finding:
    """A reduction of which nobody knows whether it is done once, as a finding."""
    return Finding(
        rule=NOT_ANALYSED,
        kind=NOT_ANALYSED,
        message=f"whether what {site.collective} sums is summed once was not analysed: {why}",
        fix="have a layer reach it, or accept this entry in a baseline, with the reason",
        file=site.file,
        line=site.line,
        cls=site.cls,
        method=site.method,
        subject=site.collective,
        takes=(why,),
    )


def not_analysed(line: str) -> Finding:
    """What could not be looked at, as a finding; `line` is its file and why, or a class and why."""
    what, _, why = line.partition(": ")
    file, _, number = what.partition(".py:")
    found = what.endswith(".py") or number.isdecimal()
    return Finding(
        rule=NOT_ANALYSED,
        kind=NOT_ANALYSED,
        message=f"{what} was not analysed, so that nobody knows what it sums or refuses: {why}",
        fix="mend it, or accept this entry in a baseline, with the reason",
        file=f"{file.removesuffix('.py')}.py" if found else None,
        line=int(number) if number.isdecimal() else None,
        subject=f"{file.removesuffix('.py')}.py" if found else what,
    )
