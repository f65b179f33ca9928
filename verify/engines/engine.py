"""What an engine says of itself, so that nothing outside its folder names it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from verify.engines.layout import Layout
from verify.report.report import Json


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What rounding does in the type that an engine computes in; docs/serve.md has what was seen.

    Every weight moved by `size` of itself, up or down at random, is about a sum in another order.
    `factor` times the furthest of three draws is allowed; a corruption has to move `margin` times
    that. `repeats`: the same pass, run twice, says the same to the last bit.
    """

    size: float
    factor: float
    margin: float
    repeats: bool


# half a unit in the last place up to one
FLOAT32 = Precision(size=2.0**-23, factor=10.0, margin=10.0, repeats=True)
# the least that moves a weight at all, each by a whole unit in its last place, where a sum in
# another order rounds by parts of one: no factor on top
BFLOAT16 = Precision(size=2.0**-8, factor=1.0, margin=4.0, repeats=False)


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

    `devices` is the same engine on others than `device`, by name. A `caged` one has limits and no
    network; a `fresh` one imports the engine in every process of every case, so that one run does
    what is otherwise several. `case_s` bounds one run, in seconds.

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
    device: str = "cpu"
    devices: Mapping[str, "Engine"] = field(default_factory=dict)
    precision: Precision = FLOAT32
    caged: bool = True
    fresh: bool = False
    case_s: float = 120.0
