"""The one value every check returns and every renderer reads.

`payload` is the JSON contract of the command; `sections` are what a person reads; `findings` are
what is wrong. Renderers know these types and no command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

SCHEMA_VERSION = 2

Reach = Literal["default", "option", "conditional"]
# the rule of what could not be looked at, which no choice lets pass
NOT_ANALYSED = "not-analysed"
# how a related place's `what` begins where it sums before the finding's own does
SUMS_FIRST = "sums up first"
# ... and all of it where what the finding's own place leaves is summed up afterwards
SUMS_UP = "sums it up"
# what it says of the call that leaves the partial sum, inside what the finding's own line builds
LEAVES = "leaves the partial sum"
REACHES: tuple[Reach, ...] = ("default", "option", "conditional")


@dataclass(frozen=True, kw_only=True)
class Related:
    """Another place that a finding is about; `what` says what happens there."""

    file: str
    line: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One place that is wrong, the smallest case that shows it, and what to change.

    In three parts: `message` says what happens, `sums` who sums it up and when, `fix` what to do.
    `file` is relative to the folder that holds the package; `row` is bits in flag order, `rows` are
    all in which it happens; `counts` holds, per rank, how often each rank's partial sum is counted
    in what that rank ends up with, and `counts_of` of which token, where tokens differ; `groups`
    maps a group kind to its rank lists, so that the counts can be drawn. `takes` are the settings
    without which it does not happen (`tp_size > 1`), where a setting and not this place is what is
    wrong; `conditions` what else the layer's code asks for. `reach`, `launch` and `needs` say what
    it takes to meet it on a server; `refused` where the source refuses others.
    """

    rule: str
    message: str
    sums: str = ""
    fix: str = ""
    subject: str = ""
    kind: str = ""
    file: str | None = None
    line: int | None = None
    cls: str | None = None
    method: str | None = None
    row: str | None = None
    deployment: Mapping[str, Json] | None = None
    # what the engine itself said, `command`, `said` and `why`; None where it was not asked
    serve: Mapping[str, Json] | None = None
    counts: tuple[tuple[int, ...], ...] | None = None
    counts_of: str = ""
    groups: Mapping[str, tuple[tuple[int, ...], ...]] | None = None
    rows: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    reach: Reach | None = None
    launch: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    related: tuple[Related, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """Every key, None where it does not apply."""
        return asdict(self)


Cell = Literal["skip", "reduce", "expected", "unexpected", "unreachable"]


@dataclass(frozen=True, kw_only=True)
class TableSection:
    """Columns and rows of text; `notes` are sentences shown below.

    `more` where it is not what a reader looks for first: a table in text leaves it out unless all
    is asked for.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class GridLine:
    """One site's truth table: a cell per row of the grid, in row order.

    `facets` are the values a reader may filter by (model, category, verdict); `detail` is what
    the line opens to.
    """

    label: str
    cells: tuple[Cell, ...]
    facets: Mapping[str, str]
    detail: tuple[TableSection, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GridSection:
    """Sites by rows: which skip, which reduce, where two predicates differ."""

    title: str
    flags: tuple[str, ...]
    rows: tuple[str, ...]
    lines: tuple[GridLine, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RanksSection:
    """A deployment drawn as ranks and groups with the counts each rank ends up with.

    `groups` maps a group kind (`EP`, `MoE-TP`, ...) to its rank lists; `counts[r][s]` is how often
    rank s's partial sum is counted on rank r.
    """

    title: str
    groups: Mapping[str, tuple[tuple[int, ...], ...]]
    counts: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()


Section: TypeAlias = TableSection | GridSection | RanksSection


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one command found. `summary` is the line for stderr.

    `file_prefix` before a finding's `file` is its path in the repository that holds the source,
    `python/`; empty where the source is in no repository. `code` holds the lines of the source
    around findings, by file and number; `web` is the address under which its files can be read,
    empty where nobody has published them; `commit` is the repository and revision of a checkout.
    `requirement` names the source for another command. `everything` where a reader asked for all
    there is.
    """

    command: str
    title: str
    summary: str
    payload: Mapping[str, Json]
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]
    file_prefix: str = ""
    code: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    web: str = ""
    commit: tuple[str, str] | None = None
    requirement: str = ""
    everything: bool = False

    def as_json(self) -> dict[str, Json]:
        """The command's JSON contract: schema version, payload, findings."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            **self.payload,
            "findings": [finding.as_json() for finding in self.findings],
        }
