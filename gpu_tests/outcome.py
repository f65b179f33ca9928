"""One case's outcome: every rank's verdict put together and held against the ledger's."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_tests.cases import Case
from gpu_tests.expect import expected
from gpu_tests.judge import Kind, RankVerdict, together
from verify.checks.prove.judge import Verdict
from verify.report.report import Finding, Json

MAX_LISTED_RANKS = 4


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the ranks measured for `case` and what the ledger says they had to."""

    case: Case
    ranks: tuple[RankVerdict, ...]
    ledger: Verdict

    @classmethod
    def of(cls, case: Case, ranks: Sequence[RankVerdict]) -> "Outcome":
        """The outcome of a case that every rank has answered."""
        return cls(case=case, ranks=tuple(ranks), ledger=expected(case))

    @property
    def kind(self) -> Kind:
        """Measured."""
        return together(self.ranks)

    @property
    def counts(self) -> tuple[tuple[int, ...], ...]:
        """Per rank, how often it counts each rank's partial sum; empty rows for no tokens."""
        return tuple(verdict.counts for verdict in self.ranks)

    @property
    def fused_norm(self) -> bool:
        """Whether the sum went through the fused all-reduce + norm kernel."""
        return any(verdict.fused_norm for verdict in self.ranks)

    @property
    def error(self) -> float:
        """The largest deviation from the one-rank reference, in units of the tolerance."""
        return max(verdict.error for verdict in self.ranks)

    @property
    def relative_error(self) -> float:
        """The same, relative to the root mean square of the block's output."""
        return max(verdict.relative_error for verdict in self.ranks)

    @property
    def why(self) -> str:
        """What stopped a crash, in its own words."""
        return next((verdict.why for verdict in self.ranks if verdict.why), "")

    @property
    def verdict(self) -> str:
        """The kind in words: `double (x4)`, `missing (ranks 1, 3)`."""
        if self.kind == "double":
            return f"double (x{max(verdict.factor for verdict in self.ranks)})"
        if self.kind == "missing":
            lost = sorted({shard for verdict in self.ranks for shard in verdict.missing})
            return f"missing (ranks {', '.join(map(str, lost[:MAX_LISTED_RANKS]))})"
        return self.kind

    @property
    def problem(self) -> str:
        """Why this outcome is wrong, in one sentence; empty when all is as it must be."""
        if self.kind == "not prepared":
            return f"not run: {self.why}"
        if self.kind != self.ledger.kind:
            return f"ranks measure {self.verdict}, the ledger says {self.ledger.kind}"
        if self.kind == "crash" and any(verdict.kind != "crash" for verdict in self.ranks):
            return "some ranks stopped and others went on without them"
        if not self._counts_agree():
            return f"ranks count {self.counts}, the ledger {self.ledger.counts}"
        return "" if self.kind == "crash" else self._value_problem()

    def _value_problem(self) -> str:
        """What is wrong with the values, given that kind and counts are right."""
        told = max(verdict.told for verdict in self.ranks)
        if told > 1:
            return f"values deviate from what the counts say by {told:.1f} tolerances"
        if self.kind != "exact":
            return "" if self.error > 1 else f"counts say {self.verdict}, values do not show it"
        worst = max(self.error, *(verdict.final for verdict in self.ranks))
        return f"values deviate from one rank's by {worst:.1f} tolerances" if worst > 1 else ""

    def _counts_agree(self) -> bool:
        """Rank by rank; a crash leaves nothing to count, and a rank without tokens nothing."""
        if self.kind == "crash":
            return True
        return all(
            self._rank_agrees(mine, ledgers)
            for mine, ledgers in zip(self.ranks, self.ledger.counts, strict=True)
            if mine.counts
        )

    def _rank_agrees(self, mine: RankVerdict, ledgers: tuple[int, ...]) -> bool:
        if mine.family != self.ledger.family:
            # its own tokens are right in every family, and the ledger shows the one that is wrong
            return mine.kind == "exact" and set(ledgers) == {1}
        return mine.counts == ledgers

    def as_json(self) -> dict[str, Json]:
        """One entry of the report's `cases`."""
        return {
            "subject": self.case.subject,
            "deployment": self.case.deployment.as_json(),
            "row": self.case.row,
            "dtype": self.case.dtype,
            "guard": self.case.guard,
            "fused_norm": self.fused_norm,
            "kind": self.kind,
            "expected": self.ledger.kind,
            "verdict": self.verdict,
            "counts": self.counts,
            "max_error": self.relative_error,
            "max_error_in_tolerances": self.error,
        }

    def finding(self) -> Finding:
        """The problem as a finding."""
        layout = self.case.deployment.layout
        return Finding(
            rule="ranks-disagree",
            message=f"{self.case.title}: {self.problem}",
            subject=self.case.subject,
            kind=self.kind,
            row=self.case.row,
            deployment=self.case.deployment.as_json(),
            counts=self.counts,
            groups={"EP": layout.ep, "MoE-TP": layout.moe_tp, "attention TP": layout.attn_tp},
        )
