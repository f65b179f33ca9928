"""What an engine says of itself, so that nothing outside its folder names it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.engines.layout import Layout
from verify.report.report import Json


@dataclass(frozen=True, kw_only=True)
class Environment:
    """How the Python is made that an engine's source is imported in.

    `requirements(release)` are pinned (`name==version`); a release that is not known is given as
    `newest`. `size` is what is said before: gigabytes and minutes.
    """

    newest: str
    size: str
    requirements: Callable[[str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to serve for a finding: any of `models` on any of `layouts`; or `why_not`."""

    models: tuple[str, ...] = ()
    layouts: tuple[Layout, ...] = ()
    arguments: tuple[str, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One serving engine, as `serve` needs it.

    `home` is the folder of all that serving it takes here. `package` is what a source holds and
    Python imports; `distributions` are the names it is published under, declared forks included.
    `drive` is the module started inside the engine's Python, with the functions of zygote's
    `Drive`; which stand-ins it put in place, and which models a release has, only that module can
    say. `variables` are the environment that it is started with.

    `ranks(layout)` is how many processes a layout takes, `illegal(layout)` why no server can have
    it ("" where one might), `subsets` are layouts under one name, `layouts()` all that are tried
    under `--all-layouts`, `launch(layout)` its server arguments, and
    `command_line(model, folder, words)` all arguments of one server. `parallel` are options about
    how work is spread over ranks: the one rank is started without them.

    `sizes_differ` finds the words with which ranks say that they brought tensors of different
    sizes to a collective, `peer_gone` those for a peer that left. `asked` makes the launch
    for the JSON of a finding of scan or prove.
    """

    name: str
    home: Path
    package: str
    distributions: tuple[str, ...]
    drive: str
    variables: Mapping[str, str]
    environment: Environment
    ranks: Callable[[Layout], int]
    illegal: Callable[[Layout], str]
    subsets: Mapping[str, tuple[Layout, ...]]
    layouts: Callable[[], Iterable[Layout]]
    launch: Callable[[Layout], tuple[str, ...]]
    command_line: Callable[[str, str, Sequence[str]], list[str]]
    parallel: frozenset[str]
    sizes_differ: re.Pattern[str]
    peer_gone: re.Pattern[str]
    asked: Callable[[Mapping[str, Json]], Asked]
