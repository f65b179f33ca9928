"""The pull request, judged: in which rows is the helper's answer right, in which the original's?

Agreeing with the original proves nothing where the original is wrong. A block can answer a row in
four ways (reduce or skip, EP and TP); an answer is judged by the share of the row's deployments
in which every partial sum is counted exactly once, and compared with the best of the four.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from helper import Path
from oracles import SITES
from verify.checks.prove.judge import Kind
from verify.checks.prove.lattice import prove
from verify.checks.prove.planned import Planner, the_plan
from verify.checks.prove.planned_rows import Rows, plan_rows
from verify.checks.prove.subject import Subject, block, blocks, helper_guards, oracle_guards
from verify.logic import truth
from verify.logic.flags import flag_names
from verify.parallel.guards import ANSWERS, Answer, Guards, always
from verify.report.report import Json, TableSection

Right = Literal["right", "best", "wrong"]


@dataclass(frozen=True, kw_only=True)
class RowVerdict:
    """One row of one block: both answers, and in how many deployments each answer is exact.

    `plan_exact`: in how many of them a layer is that follows the helper's plan instead.
    """

    block: str
    row: int
    deployments: int
    exact: Mapping[Answer, int]
    plan_exact: int
    helper: Answer
    original: Answer

    def rating(self, answer: Answer) -> Right:
        """`right` everywhere, `best` where no answer is right everywhere, else `wrong`."""
        exact = self.exact[answer]
        if exact == self.deployments:
            return "right"
        return "best" if exact == max(self.exact.values()) else "wrong"

    @property
    def best(self) -> Answer:
        """The answer that is exact most often; the helper's where it is as good as any."""
        most = max(self.exact.values())
        if self.exact[self.helper] == most:
            return self.helper
        return next(answer for answer in ANSWERS if self.exact[answer] == most)

    @property
    def meaning(self) -> str:
        """What the migration did to this row."""
        helper, original = self.rating(self.helper), self.rating(self.original)
        if self.exact[self.helper] > self.exact[self.original]:
            return "latent fix"
        if self.exact[self.helper] < self.exact[self.original]:
            return "regression"
        return "both right" if helper == "right" else f"both {original}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The sections for a reader, the same as JSON, and the verdicts themselves."""

    sections: tuple[TableSection, ...]
    payload: Mapping[str, Json]
    rows: tuple[RowVerdict, ...]

    def skip_reason_matters(self, flag: str, path: Path) -> tuple[RowVerdict, ...]:
        """Rows raised by `flag` alone in which skipping `path` too is exact more often."""
        alone = 1 << (len(flag_names()) - 1 - flag_names().index(flag))
        return tuple(
            row
            for row in self.rows
            if row.row == alone and row.exact[row.helper.with_skip(path)] > row.exact[row.helper]
        )


def judged(*, max_ranks: int = 8, planner: Planner = the_plan) -> Judged:
    """Judge every block of the pull request, row by row, in deployments of up to `max_ranks`.

    `planner` answers for the helper's plan, in the same deployments.
    """
    originals = {block(members[0]): oracle_guards(members) for members in blocks(SITES)}
    helpers = {
        block(members[0]): helper_guards(
            originals[block(members[0])].producer, handed=set(members[0].passes.values())
        )
        for members in blocks(SITES)
    }
    candidates = [
        Subject(name=name, guards=always(original, answer))
        for name, original in originals.items()
        for answer in ANSWERS
    ]
    kinds = prove(candidates, max_world_size=max_ranks).kinds
    planned = plan_rows(originals.values(), max_world_size=max_ranks, planner=planner)
    rows = tuple(
        verdict
        for name, original in originals.items()
        for verdict in _rows(name, original, helpers[name], kinds, planned)
    )
    meanings = Counter(row.meaning for row in rows)
    return Judged(
        sections=(_decided(rows, meanings, max_ranks), _surroundings(rows)),
        payload={
            "max_ranks": max_ranks,
            "meanings": dict(meanings),
            "rows": [_json(row) for row in rows],
        },
        rows=rows,
    )


def _decided(rows: Sequence[RowVerdict], meanings: Counter[str], max_ranks: int) -> TableSection:
    """Rows in which another answer than one of the two would be better."""
    shown = [row for row in rows if row.meaning in ("latent fix", "regression", "both wrong")]
    return TableSection(
        title="The pull request, judged: rows in which an answer is wrong",
        columns=(
            "block",
            "row",
            "original",
            "exact",
            "helper",
            "exact",
            "plan",
            "best",
            "verdict",
        ),
        rows=tuple(
            (
                row.block,
                truth.row_bits(row.row, len(flag_names())),
                row.original.words,
                _share(row, row.original),
                row.helper.words,
                _share(row, row.helper),
                _plan_share(row),
                f"{row.best.words} {_share(row, row.best)}",
                row.meaning,
            )
            for row in shown
        ),
        notes=(
            f"Legal deployments of 1 to {max_ranks} ranks reach {len(rows)} rows of "
            f"{len({row.block for row in rows})} blocks: "
            + ", ".join(f"{number} {meaning}" for meaning, number in meanings.most_common())
            + ".",
            "exact: the share of the row's deployments in which every partial sum is counted "
            "exactly once; best: the answer, of all that a block can give, with the highest share.",
            "plan: the same share where block and layer follow helper's plan. It has no one answer "
            "to a row: it also says over which ranks, how shared experts are built and who reads.",
        ),
    )


def _surroundings(rows: Sequence[RowVerdict]) -> TableSection:
    """Rows in which no answer is right everywhere: something else than the guard is wrong."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        if row.exact[row.best] < row.deployments:
            bits = truth.row_bits(row.row, len(flag_names()))
            shares = _share(row, row.best), _plan_share(row)
            groups.setdefault((bits, row.best.words, *shares), []).append(row.block)
    return TableSection(
        title="Rows in which no answer is right in every deployment",
        columns=("row", "best answer", "exact", "plan", "blocks"),
        rows=tuple((*key, str(len(blocks))) for key, blocks in sorted(groups.items())),
        notes=(
            "What goes wrong in the others is not the guard's doing: `prove` lists the causes.",
        ),
    )


def _rows(
    name: str,
    original: Guards,
    helper: Guards,
    kinds: Mapping[tuple[Guards, int], Counter[Kind]],
    planned: Rows,
) -> Iterator[RowVerdict]:
    by_answer = {answer: always(original, answer) for answer in ANSWERS}
    for row in range(1 << len(flag_names())):
        counted = {
            answer: kinds.get((by_answer[answer], row), Counter[Kind]()) for answer in ANSWERS
        }
        total = counted[ANSWERS[0]].total()
        if total:
            yield RowVerdict(
                block=name,
                row=row,
                deployments=total,
                exact={answer: each["exact"] for answer, each in counted.items()},
                plan_exact=planned[original, row][0],
                helper=_answer(helper, row),
                original=_answer(original, row),
            )


def _answer(guards: Guards, row: int) -> Answer:
    skips_tp = guards.skips("TP", row)
    # a block with one site has one answer for both halves of the sum
    return Answer(guards.skips("EP", row) if guards.producer == "two-site" else skips_tp, skips_tp)


def _share(row: RowVerdict, answer: Answer) -> str:
    return f"{row.exact[answer] / row.deployments:.0%}"


def _plan_share(row: RowVerdict) -> str:
    return f"{row.plan_exact / row.deployments:.0%}"


def _json(row: RowVerdict) -> dict[str, Json]:
    return {
        "block": row.block,
        "row": truth.row_bits(row.row, len(flag_names())),
        "deployments": row.deployments,
        "helper": row.helper.words,
        "helper_exact": row.exact[row.helper],
        "original": row.original.words,
        "original_exact": row.exact[row.original],
        "plan_exact": row.plan_exact,
        "best": row.best.words,
        "best_exact": row.exact[row.best],
        "meaning": row.meaning,
    }
