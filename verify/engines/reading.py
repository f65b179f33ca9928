"""What the checks that read a source are told of the engine it is, so that none of them names it.

Here stand roles; the names that an engine has for them, and the functions that read what it says
in its own way, are its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify.engines.ledger import FlagDefinitions, Release
from verify.engines.traits import ContextRows, LocalRows, ReductionGroups, Stage
from verify.interpreter.index import Class, Index
from verify.interpreter.library import Library
from verify.interpreter.machine import Machine
from verify.interpreter.state import State
from verify.interpreter.values import Place, Primitive, Value
from verify.logic.diagrams import Cond, Logic
from verify.parallel.guards import Producer
from verify.source.source import SourceTree

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where in a source what decides about sums is, as paths; `models` are a package's name.

    `shared` is the file of the flags' functions, `communicator` that of what sums around a block,
    `registries` the folder of what models there are, `server` the server's arguments, and what
    matches `imported` is a module of layers that a model file names. `environment` is where
    `declares` finds the variables of the environment (`name`, `default`); what matches `reads` is
    a condition that reads one (`opposite`, then `declared`, or `named` with its `default`).
    """

    models: str
    shared: str
    communicator: str
    registries: str
    server: str
    arguments: str
    boundaries: str
    dispatchers: str
    imported: re.Pattern[str]
    environment: str
    declares: re.Pattern[str]
    reads: re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The flags by what they say of a row, each by its name in `Library.flags`.

    `fuses`: the layer leaves its sum to the next one's fused norm; `scatters`: the communicator
    reduce-scatters, in equal parts; `scatters_by_size`: in each group's own size; `combines`: the
    dispatcher's combine sums.
    """

    fuses: str
    scatters: str
    scatters_by_size: str
    combines: str


@dataclass(frozen=True, kw_only=True)
class Atoms:
    """Conditions by the text that sources have for them.

    `no_dispatch`: no all-to-all backend; `local_work`: each rank holds all experts for its own
    tokens; `attention_dp`: attention groups hold different tokens; `asks_rows`: what begins a
    communicator's own question about its rows; `asked_late`: whether the platform's kernel takes a
    sum that is left to it; `obvious` are words of conditions that follow from a row's flags.
    """

    no_dispatch: str
    local_work: str
    attention_dp: str
    asks_rows: str
    asked_late: str
    obvious: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Words of a class's text that tell what it is for.

    `norm`; `producer` leaves a partial sum; `consumer` completes one; `model` builds layers.
    `handoff` sends tensors to the next pipeline stage, `embedding` is a vocabulary's class, and
    `expert_layers`, `expert_factory` make experts, `dispatcher` is the class of all-to-all
    backends.
    """

    norm: tuple[str, ...]
    producer: tuple[str, ...]
    consumer: tuple[str, ...]
    model: tuple[str, ...]
    handoff: str
    embedding: str
    expert_layers: tuple[str, ...]
    expert_factory: str
    dispatcher: str


@dataclass(frozen=True, kw_only=True)
class Launches:
    """The options with which a server is started, and what they make of it.

    `plain`, `attention_dp` and the tables by cause and by flag are tried in turn until the source
    takes one; `runners` are tried with a dispatcher that takes no other. `stages` have pipeline
    stages. `needs` are what a row takes of a machine or a checkpoint. `moved` are options that
    stand for others once the server has read them; `local_size` is the one of expert weights that
    every rank holds. `stages_declared` says what each of the functions that declare a stage
    declares, `stacks` make layers by a function of their number; `context` is the function whose
    result has the sizes, `settings` say of a function which option it returns. `own_rows` tells
    whether an FFN runs on each rank's own rows, `gathers` is what the boundary asks of a stage's
    update to bring the residual of such rows back to the attention group's. `device` is what
    functions answer about the device that a launch is for unless it says otherwise. In the file
    `configures` what matches `drafts` names a model that is only built beside another one, to draft
    for it, as the option `drafted` asks.
    """

    plain: Options
    attention_dp: Options
    by_cause: Mapping[str, tuple[Options, ...]]
    by_flag: Mapping[str, tuple[Options, ...]]
    stages: tuple[Options, ...]
    runners: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]
    moved: frozenset[str]
    local_size: str
    stages_declared: Mapping[str, str]
    stacks: tuple[str, ...]
    context: str
    settings: Mapping[str, str]
    own_rows: "Asked"
    gathers: str
    device: Mapping[str, Any]
    configures: str
    drafts: re.Pattern[str]
    drafted: str
    behind: "Behind"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A function of the source."""

    file: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What runs the experts behind an all-to-all dispatcher, as the source registers it.

    `registered` is a runner for a format, `fused` one for a backend; `output` names a class that a
    dispatcher hands on, `format` its format. `unquantised` is the file that picks the runner of
    unquantised experts, `names` how it writes one, `otherwise` the one that no option asks for.
    `file` and `ends` are where a format that the runner does not know ends; `option` is the
    server's option that asks for a runner. `asserts` is a setting of the experts that a runner's
    constructor insists on, or the words among which it has to be.

    `layer` is the function that says which class the experts' layer is, without a quantisation for
    None of `quantisation`; its method `runs` takes what the dispatcher hands on. `builds` begins
    the paths of what that layer is built of, dispatchers too.
    """

    registered: re.Pattern[str]
    fused: re.Pattern[str]
    output: re.Pattern[str]
    format: re.Pattern[str]
    unquantised: str
    names: str
    otherwise: re.Pattern[str]
    file: str
    ends: re.Pattern[str]
    option: str
    asserts: re.Pattern[str]
    layer: Asked
    quantisation: str
    runs: str
    builds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Said:
    """The engine's own names in sentences for a person.

    `flags`: what each says of a layer, in row order; `moves`: what moves rows and sums nothing;
    `last_layer`: what a communicator of the last layer is told; `local_work`, `combined`: where a
    fault of that kind happens.
    """

    flags: Mapping[str, str]
    moves: str
    last_layer: str
    local_work: str
    combined: str


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What is true of every configuration of a source, as conditions.

    `definitions(state)`: the flags' own definitions, and what holds besides where a communicator
    may reduce-scatter; `general(state)`: what holds in every source; `of_atoms(state, known)`: for
    the atoms that came up since `known`; `refused(index, cls, handed, logic)`: what cannot be where
    a layer of this class runs. `published(index)` are the flags that a boundary publishes,
    `texts(index)` the flags' functions as expressions. `platforms(name)` are the kinds of device
    that an atom speaks of. `parts` are the sizes that divide the whole group. `attention_group` and
    `copies` find words of a module that is built for attention groups, and for several copies of
    the experts.
    """

    definitions: Callable[[State], tuple[Cond, Cond]]
    general: Callable[[State], Cond]
    of_atoms: Callable[[State, frozenset[str]], Cond]
    refused: Callable[[Index, Class, frozenset[str], Logic], Cond]
    published: Callable[[Index], tuple[str, ...]]
    texts: Callable[[Index], dict[str, str]]
    platforms: Callable[[str], tuple[str, ...]]
    parts: tuple[str, ...]
    attention_group: re.Pattern[str]
    copies: re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a layer does around its block, read from the source.

    `groups(index, logic)`: over which group each step sums; `takes_the_picked_group(index, norm)`:
    whether a norm hands that choice on; `boundary_rows(machine, sparse, dense_size)` and
    `communicator_rows(machine, sparse)`: where an MLP runs on rank-local rows;
    `fused_shared(index)`: the argument that says of how many experts every rank has one;
    `context_rows(machine, layer, communicator, sparse)`: where it runs on a context rank's rows;
    `boundary_sum(index, stage)`: the call with which a stage boundary completes a layer's sum.
    """

    groups: Callable[[Index, Logic], ReductionGroups]
    takes_the_picked_group: Callable[[Index, Value | None], bool]
    boundary_rows: Callable[[Machine, Value | None, Value], LocalRows]
    communicator_rows: Callable[[Machine, Value | None], LocalRows]
    fused_shared: Callable[[Index], str | None]
    context_rows: Callable[[Machine, Class, Primitive, Value | None], ContextRows | None]
    boundary_sum: Callable[[Index, Stage], Place | None]


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """How a source's layers are wired, for the ledger.

    `why_not(index)`: why its steps are not known, empty where they are; `producers`: the kind of
    block that ends in a collective; `communicator`: what moves a layer's tokens, `own_sum` what a
    stage brings along to be summed by. `asks_sizes(tree)` says whether it asks if groups of their
    own sizes are scattered, `release(index, definitions)` what differs in its steps.
    """

    why_not: Callable[[Index], str]
    producers: Mapping[str, Producer]
    communicator: str
    own_sum: str
    asks_sizes: Callable[[SourceTree], bool]
    release: Callable[[Index, FlagDefinitions], Release]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An engine whose source is read: its name for a person, and what the interpreter is told.

    `local(path)` is a file's path without what every file of the engine begins with.
    """

    title: str
    library: Library
    files: Files
    roles: Roles
    atoms: Atoms
    structure: Structure
    launches: Launches
    said: Said
    constraints: Constraints
    traits: Traits
    wiring: Wiring
    local: Callable[[str], str]

    @property
    def flags(self) -> Sequence[str]:
        """The flags in row order."""
        return self.library.flags
