"""A fault becomes a finding: which rule, what happens, who sums twice or nobody, what to change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from verify.report import Finding
from verify.scan.judge import Fault
from verify.scan.primitives import A2A_NONE, COMMUNICATOR, FLAGS
from verify.scan.sites import Call, Guard
from verify.scan.state import Consumer
from verify.scan.values import Key, Place
from verify.truth import table_bits

ADVICE = "reduces-after-combine"

CONSUMERS = {
    "fused norm": "the next layer's fused all-reduce and norm",
    "communicator": "the communicator's scatter after the MLP",
    "boundary": "the stage boundary",
    "return": "nobody: the layer returns it as it is",
    "scatter": "dp_scatter, which moves rows and sums nothing",
}
MEANING = {
    "AF": "the layer fuses the all-reduce into the next norm",
    "RS": "the communicator reduce-scatters",
    "DP": "attention DP with EP uses reduce_scatterv",
    "FI": "the FP4 dispatcher sums in combine",
}
# atoms that say how large or on what, or that the flags themselves imply
_OBVIOUS: tuple[str, ...] = (
    "hidden_act",
    "hasattr(",
    "shape[0] > 0",
    "is_dp_attention_enabled",
    "_dp_size ==",
)
_OBVIOUS += (A2A_NONE, f"{COMMUNICATOR}.", "is_flashinfer_cutlass()", "modelopt_fp4", "_use_aiter")
_OBVIOUS += ("allreduce_fusion", "DISABLE_FLASHINFER", "disable_fp4", "_is_sm", "is_max_len()")
MAX_CONDITIONS = 5
SIZES = ("tp_size", "moe_ep_size", "moe_tp_size")


def rule_of(fault: Fault, guards: Mapping[Key, Guard | None], calls: Iterable[Call]) -> str:
    """The id of the rule that the fault breaks."""
    place = fault.places[0]
    guard = guards.get(place.key)
    row_flags = {flag for flag, bit in zip(FLAGS, fault.row, strict=True) if bit == "1"}
    by_kind = {"backend": ADVICE, "twice": "reduced-twice", "past the end": "lost-past-end"}
    if fault.kind in by_kind:
        return by_kind[fault.kind]
    reads = guard.flags if guard else frozenset()
    if fault.kind == "lost":
        return "flag-misbound" if guard and _must(guard, fault.row) else "lost-sum"
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
        """Both together, shown by the one with the smaller row."""
        first = min((self, other), key=lambda one: (one.fault.row.count("1"), one.fault.row))
        return replace(first, rows=self.rows | other.rows, layers=self.layers | other.layers)

    @property
    def shown_layers(self) -> str:
        """The first few layers' names."""
        return ", ".join(sorted(self.layers)[:4])


def finding(broken: Broken) -> Finding:
    """The finding for a person and for the JSON contract."""
    fault, place = broken.fault, broken.fault.places[0]
    return Finding(
        rule=broken.rule,
        message=_message(broken),
        fix=_fix(fault, broken.rule),
        subject=broken.shown_layers,
        kind=fault.kind,
        file=place.file,
        line=place.line,
        cls=place.cls,
        method=place.method,
        row=fault.row,
    )


def shown_consumer(consumer: Consumer) -> str:
    """Who takes the tensor, for a sentence."""
    return f"{CONSUMERS[consumer.kind]} ({consumer.file}:{consumer.line})"


def _message(broken: Broken) -> str:
    fault, place = broken.fault, broken.fault.places[0]
    flags = [flag for flag, bit in zip(FLAGS, fault.row, strict=True) if bit == "1"]
    where = " and ".join(MEANING[flag] for flag in flags) or "no flag is set"
    rows = table_bits(broken.rows, len(FLAGS))
    conditions = [
        "an all-to-all backend" if name == f"not {A2A_NONE}" else name
        for name in fault.conditions
        if name == f"not {A2A_NONE}" or not any(word in name for word in _OBVIOUS)
    ]
    case = f"where {where}"
    if conditions:
        case += f" ({'; '.join(conditions[:MAX_CONDITIONS])})"
    consumer = shown_consumer(fault.consumer)
    sums = {
        "double": f"{place.collective} has summed the output and {consumer} sums it again",
        "combined": f"{place.collective} sums what the dispatcher's combine has already summed",
        "backend": f"{place.collective} sums what the dispatcher's combine has already summed",
        "past the end": "also the last layer leaves its sum to the next: its communicator is "
        "not told is_last_layer, and the final norm sums nothing up",
        "twice": f"{place.collective} sums it, and line {fault.places[-1].line} again",
        "lost": f"{place.collective} does not sum the output and the one who takes it, "
        f"{consumer}, does not either",
    }[fault.kind]
    return f"{case}: {sums}; rows {' '.join(rows)}; in {broken.shown_layers}"


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
            return "build the communicator with is_last_layer"
        case "twice", _:
            return "keep one of the two reductions"
    return "reduce here, or hand the tensor to a consumer that does"
