"""One case's outcome: every rank's verdict put together and held against the ledger's."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_tests.cases import Case
from gpu_tests.expect import expected
from gpu_tests.judge import Kind, RankVerdict, together
from verify.ledger.judge import Verdict
from verify.report import Finding, Json

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
    def error(self) -> float:
        """The largest deviation from the one-rank reference, in units of the tolerance."""
        return max(verdict.error for verdict in self.ranks)

    @property
    def relative_error(self) -> float:
        """The same, relative to the root mean square of the block's output."""
        return max(verdict.relative_error for verdict in self.ranks)

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
        if self.kind != self.ledger.kind:
            return f"ranks measure {self.verdict}, the ledger says {self.ledger.kind}"
        if not self._counts_agree():
            return f"ranks count {self.counts}, the ledger {self.ledger.counts}"
        told = max(verdict.told for verdict in self.ranks)
        if told > 1:
            return f"values deviate from what the counts say by {told:.1f} tolerances"
        if self.kind == "exact":
            worst = max(self.error, *(verdict.final for verdict in self.ranks))
            return f"values deviate from one rank's by {worst:.1f} tolerances" if worst > 1 else ""
        if self.kind != "crash" and self.error <= 1:
            return f"counts say {self.verdict}, values do not show it"
        return ""

    def _counts_agree(self) -> bool:
        """Rank by rank; where ranks hold copies or tokens are mixed the ledger counts otherwise."""
        copies = self.case.deployment.config.moe_dp_size > 1
        copies |= self.case.deployment.shared == "replicated"
        if self.kind in ("crash", "mixed") or copies:
            return True
        families = {verdict.family for verdict in self.ranks if verdict.counts}
        if families - {self.ledger.family}:
            return self.kind == "exact"
        return all(
            not mine or mine == ledgers
            for mine, ledgers in zip(self.counts, self.ledger.counts, strict=True)
        )

    def as_json(self) -> dict[str, Json]:
        """One entry of the report's `cases`."""
        return {
            "subject": self.case.subject,
            "deployment": self.case.deployment.as_json(),
            "row": self.case.row,
            "dtype": self.case.dtype,
            "guard": self.case.guard,
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
