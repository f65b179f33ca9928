"""A fault becomes a finding: which rule, what happens, who sums twice or nobody, what to change."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from verify.checks.scan.judge import Fault
from verify.checks.scan.roots import shown_layers
from verify.checks.scan.sites import Call, Guard
from verify.engines.sources import reading
from verify.interpreter.state import Consumer
from verify.interpreter.values import Key, Place
from verify.logic.truth import table_bits
from verify.report.report import SUMS_FIRST, Finding, Related

ENGINE = reading()
FLAGS, ATOMS, SAID = ENGINE.flags, ENGINE.atoms, ENGINE.said
COMBINED = "reduces-after-combine"
LOCAL_ROWS = "sums-local-rows"
LOST = "lost-sum"
BACKEND = ("moe_a2a_backend",)
COMBINES = f"{SUMS_FIRST}: the dispatcher's combine"

CONSUMERS = {
    "fused norm": "the next layer's fused all-reduce and norm",
    "communicator": "the communicator's scatter after the MLP",
    "boundary": "the stage boundary",
    "return": "the layer's caller, which sums nothing up",
    "scatter": f"{SAID.moves}, which moves rows and sums nothing up",
}
SIZES = ("tp_size", "moe_ep_size", "moe_tp_size")


def rule_of(fault: Fault, guards: Mapping[Key, Guard | None], calls: Iterable[Call]) -> str:
    """The id of the rule that the fault breaks."""
    place = fault.places[0]
    guard = guards.get(place.key)
    row_flags = {flag for flag, bit in zip(FLAGS, fault.row, strict=True) if bit == "1"}
    by_kind = {"backend": COMBINED, "twice": "reduced-twice", "past the end": "lost-past-end"}
    if fault.kind in by_kind:
        return by_kind[fault.kind]
    reads = guard.flags if guard else frozenset()
    if fault.kind == "lost":
        return "flag-misbound" if guard and _must(guard, fault.row) else LOST
    if row_flags and row_flags <= reads and guard and _skips(guard, fault.row):
        return "flag-lost"
    if not reads:
        return "producer-ignores-consumer"
    return "ep-tp-drift" if _sibling_skips(place, fault.row, guards, calls) else "missing-skip"


def _skips(guard: Guard, row: str) -> bool:
    return not guard.logic.table(guard.when, FLAGS) >> int(row, 2) & 1


def _must(guard: Guard, row: str) -> bool:
    """Whether the method by itself reduces in that row, whatever else it asks for."""
    when = guard.logic.fix(guard.when, [(f"{size} > 1", True) for size in SIZES])
    return bool(guard.logic.table(when, FLAGS, always=True) >> int(row, 2) & 1)


def _sibling_skips(
    place: Place, row: str, guards: Mapping[Key, Guard | None], calls: Iterable[Call]
) -> bool:
    """Whether another reduction of the same method, over another group, skips in that row."""
    for call in calls:
        guard = guards.get(call.key)
        if (
            guard is not None
            and (call.file, call.cls and call.cls.name) == (place.file, place.cls)
            and call.method.name == place.method
            and guard.place.axes != place.axes
            and _skips(guard, row)
        ):
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule broken at one site: the clearest fault, all rows and layers in which it happens."""

    rule: str
    fault: Fault
    rows: int
    layers: frozenset[str]

    def joined(self, other: "Broken") -> "Broken":
        """Both together, shown by the one with the smaller row, then by what asks for less."""
        first = min((self, other), key=Broken._asks)
        backends = tuple(sorted({*self.fault.backends, *other.fault.backends}))
        fault = replace(first.fault, backends=backends)
        rows, layers = self.rows | other.rows, self.layers | other.layers
        return replace(first, fault=fault, rows=rows, layers=layers)

    def _asks(self) -> tuple[int, str, int, int]:
        """Flags, then conditions that hold: what does not hold mostly asks for nothing."""
        row, conditions = self.fault.row, self.fault.conditions
        held = sum(not name.startswith("not ") for name in conditions)
        return row.count("1"), row, held, len(conditions)


def finding(broken: Broken) -> Finding:
    """The finding for a person and for the JSON contract."""
    fault, place = broken.fault, broken.fault.places[0]
    what, sums = _said(broken)
    return Finding(
        rule=broken.rule,
        message=what,
        sums=sums,
        fix=_fix(fault, broken.rule),
        subject=shown_layers(broken.layers),
        kind=fault.kind,
        file=place.file,
        line=place.line,
        cls=place.cls,
        method=place.method,
        row=fault.row,
        rows=tuple(table_bits(broken.rows, len(FLAGS))),
        # refusing such a backend, or minding it where experts are made, ends all of them
        takes=BACKEND if broken.rule == COMBINED else (),
        conditions=shown_conditions(fault.conditions),
        related=(
            *(related(other, "sums up again") for other in fault.places[1:]),
            *((related(fault.combined, COMBINES),) if fault.combined else ()),
            *handed_over(fault.consumer),
        ),
    )


def once(found: Iterable[Finding]) -> Iterator[Finding]:
    """What one repair ends is said once, whether a backend moves tokens or not."""
    every = tuple(found)
    combined = {(one.file, one.line) for one in every if one.rule == COMBINED}
    for one in every:
        again = (one.rule, one.takes) == (LOCAL_ROWS, BACKEND)
        if not (again and (one.file, one.line) in combined):
            yield one


def shown_consumer(consumer: Consumer) -> str:
    """Who takes the tensor, for a sentence."""
    return CONSUMERS[consumer.kind]


def related(place: Place, what: str) -> Related:
    """A place beside the finding's own."""
    return Related(file=place.file, line=place.line, what=what)


def handed_over(consumer: Consumer) -> tuple[Related, ...]:
    """Where the tensor is handed to its consumer, where that is a line of the source."""
    if not consumer.line:
        return ()
    what = f"hands it to {shown_consumer(consumer)}"
    return (Related(file=consumer.file, line=consumer.line, what=what),)


def shown_conditions(names: Iterable[str]) -> tuple[str, ...]:
    """What the layer's code asks for besides, without what the flags themselves imply."""
    return tuple(
        "an all-to-all backend" if name == f"not {ATOMS.no_dispatch}" else _negated(name)
        for name in names
        if name == f"not {ATOMS.no_dispatch}" or not any(word in name for word in ATOMS.obvious)
    )


def _negated(name: str) -> str:
    """`not a is None` as source writes it: `a is not None`."""
    what = name.removeprefix("not ")
    for sign, opposite in ((" is ", " is not "), (" in ", " not in "), (" == ", " != ")):
        if what != name and what.count(sign) == 1 and " and " not in what:
            return what.replace(sign, opposite)
    return name


def _said(broken: Broken) -> tuple[str, str]:
    """What happens, and who sums it up when."""
    fault, place = broken.fault, broken.fault.places[0]
    flags = [flag for flag, bit in zip(FLAGS, fault.row, strict=True) if bit == "1"]
    where = " and ".join(SAID.flags[flag] for flag in flags) or "no flag is set"
    taker = shown_consumer(fault.consumer)
    match fault.kind:
        case "double":
            return f"where {where}, {place.collective} sums the output", f"{taker} sums it again"
        case "combined" | "backend":
            where = "an all-to-all backend moves tokens" if fault.kind == "backend" else where
            return (
                f"where {where}, {place.collective} sums what is complete",
                "the dispatcher's combine has summed it before",
            )
        case "past the end":
            return (
                "also the last layer leaves its sum to the next: its communicator is not told "
                f"{SAID.last_layer}",
                "nobody: the final norm sums nothing up",
            )
        case "twice":
            return (
                f"where {where}, {place.collective} sums the output",
                f"line {fault.places[-1].line} sums it again",
            )
    return (
        f"where {where}, {place.collective} does not sum the output",
        f"nobody: {taker} does not either"
        if fault.consumer.kind != "return"
        else "nobody: the layer returns it as it is",
    )


def _fix(fault: Fault, rule: str) -> str:
    flags = [flag for flag, bit in zip(FLAGS, fault.row, strict=True) if bit == "1"]
    match fault.kind, rule:
        case "double", "flag-lost":
            return f"hand {' and '.join(flags)} on to this method: its guard already asks for it"
        case "double", "producer-ignores-consumer" if not flags:
            return "build it with reduce_results=False: the boundary completes the sum"
        case "double", _:
            return f"skip the reduction on {' and '.join(flags)}"
        case "combined" | "backend", _:
            return "skip the reduction where the dispatcher combines"
        case "past the end", _:
            return f"build the communicator with {SAID.last_layer}"
        case "twice", _:
            return "keep one of the two reductions"
    return "reduce here, or hand the tensor to a consumer that does"
