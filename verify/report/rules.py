"""What each rule means: stable ids with the help that code scanning shows beside a finding."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`title` is a phrase, `help` says what goes wrong at run time and how it is put right."""

    id: str
    title: str
    help: str
    level: Level = "error"


_ALL: tuple[Rule, ...] = (
    Rule(
        id="ep-tp-drift",
        title="The EP and the TP reduction of one block disagree",
        help=(
            "Two reductions of the same block skip on different flags although the same later "
            "step completes both. In the rows where they differ one partial sum is counted twice "
            "or lost. Give both the same reasons to skip, except those that belong to one path."
        ),
    ),
    Rule(
        id="flag-lost",
        title="A flag is computed and never reaches the guard that needs it",
        help=(
            "The layer decides that a later step will complete the sum, but an inner call does "
            "not pass the decision on, so that the block reduces too and the sum is counted twice. "
            "Pass the flag through every call between the layer and the guard."
        ),
    ),
    Rule(
        id="flag-misbound",
        title="A flag arrives in another parameter",
        help=(
            "A positional argument lands in the parameter of a different flag, or another value "
            "lands in a flag's parameter. The guard then answers a question nobody asked. Pass "
            "flags by keyword."
        ),
    ),
    Rule(
        id="flag-redefined",
        title="A flag of the configuration is defined otherwise than in the helper",
        help=(
            "The source computes the flag by a rule that gives another answer in the configuration "
            "shown, so that tables made with the helper do not describe this source there. Bring "
            "the helper to the new definition, or compare with a source of the older one."
        ),
    ),
    Rule(
        id="group-too-narrow",
        title="A sum leaves out ranks that hold slices",
        help=(
            "The step that completes a sum runs over fewer ranks than its parts are split over: a "
            "fused norm takes the expert group where experts are also split over the MoE tensor "
            "parallel group, or a sum runs within one copy of the experts although a shared "
            "expert is split over all ranks. The other ranks' slices are lost. Sum over the group "
            "that the layer is split over."
        ),
    ),
    Rule(
        id="group-too-wide",
        title="A sum takes in another copy of the experts",
        help=(
            "With moe_dp_size above 1 there are several copies of the experts, each split over "
            "ranks of its own. The block sums its routed output over the whole tensor-parallel "
            "group, so that every expert counts once for each copy. Sum over the expert and the "
            "MoE tensor-parallel group, or refuse the setting for this model."
        ),
    ),
    Rule(
        id="ledger-crash",
        title="A legal deployment in which a collective cannot run",
        help=(
            "The ranks of one group bring tensors of different lengths, or sizes that do not fit "
            "the group. The server hangs or stops at this layer. Refuse the combination of "
            "arguments, or choose the step by the sizes it needs."
        ),
    ),
    Rule(
        id="ledger-double",
        title="A partial sum is counted more than once",
        help=(
            "In the deployment shown two steps add the same partial sums up. The output is a "
            "multiple of what it should be, and nothing crashes. Skip one of the two steps."
        ),
    ),
    Rule(
        id="ledger-missing",
        title="A partial sum is never counted",
        help=(
            "In the deployment shown the block leaves its sum to a later step that does not add "
            "up the same ranks. Every rank goes on without some of the parts. Reduce in the block, "
            "or make the later step reduce over the same ranks."
        ),
    ),
    Rule(
        id="ledger-mixed",
        title="Tensors of different tokens are added to each other",
        help=(
            "In the deployment shown a reduction runs over ranks that hold different tokens, "
            "after the sum was complete or before the tokens were gathered. Do not reduce there."
        ),
    ),
    Rule(
        id="lost-addend",
        title="A sharded addend stays where nobody completes its sum",
        help=(
            "A layer beside the routed experts, such as a shared expert, is sharded over the "
            "group, but the block runs on rows that only this rank has, where nobody sums up. "
            "Every rank keeps its own slice of that layer and misses the others. Build it "
            "replicated by the condition that makes the rows local, not by a list of backends "
            "written by hand."
        ),
    ),
    Rule(
        id="lost-at-pipeline",
        title="A sum left to the next layer is dropped between pipeline stages",
        help=(
            "The last layer of a pipeline stage skips its reduction because the next layer's norm "
            "would sum its output up. The tensor that is sent to the next stage has lost the mark "
            "that says so, and nobody sums it up. Complete the sum before sending."
        ),
    ),
    Rule(
        id="lost-past-end",
        title="The last layer leaves its sum to a next layer that does not exist",
        help=(
            "The layer asks whether to fuse its all-reduce into the next layer's norm, and its "
            "communicator was not told which layer is the last. There the block skips its "
            "reduction and the final norm reads a partial sum. Build the communicator with "
            "is_last_layer."
        ),
    ),
    Rule(
        id="lost-sum",
        title="The block skips and nobody completes the sum",
        help=(
            "The guard skips its reduction in a row in which no later step adds the partial sums "
            "up. Every rank goes on with its own part only. Reduce in these rows, or make the "
            "later step complete the sum over the same ranks."
        ),
    ),
    Rule(
        id="migrated-call-differs",
        title="A migrated call is not what its oracle states",
        help=(
            "The path, the keywords, what forward() receives or the rows in which the guard skips "
            "differ from what the migration wrote. The truth tables of the site then describe "
            "another program. Restore the call, or state the new one in the oracle."
        ),
    ),
    Rule(
        id="migrated-call-missing",
        title="A migrated call is not in the source",
        help=(
            "No call to the helper was found where the oracle states one, so that the site's guard "
            "is written out again and can drift from the others. Restore the call, or remove the "
            "oracle when the model is gone."
        ),
    ),
    Rule(
        id="migrated-call-unstated",
        title="A call to the helper that no oracle states",
        help=(
            "A model asks the helper, but what its guard was before, if it had one, is not written "
            "down: no table shows whether the call changed what it computes. Add an oracle."
        ),
        level="warning",
    ),
    Rule(
        id="missing-skip",
        title="The block reduces although a later step reduces again",
        help=(
            "The guard does not know a reason to skip. In the row shown the partial sums are "
            "added up twice: on k ranks the output is about k times too large, and nothing "
            "crashes. Ask the canonical predicate, or add the missing flag to the guard."
        ),
    ),
    Rule(
        id="mixed-addend",
        title="A sharded addend is summed over ranks that hold other tokens",
        help=(
            "A layer beside the routed experts is sharded and reduces its own output, but the "
            "block runs on rows that only this rank has. The sum mixes different tokens, or hangs "
            "where the ranks have different numbers of them. Build the layer replicated where the "
            "rows are local."
        ),
    ),
    Rule(
        id="not-analysed",
        title="What was asked for could not be looked at",
        help=(
            "A case that was named could not be run or judged, so that nothing is known about it. "
            "It is no pass. The message says which piece is missing; supply it, or ask for "
            "something else."
        ),
    ),
    Rule(
        id="producer-ignores-consumer",
        title="The layer announces a consumer that its producer is never told about",
        help=(
            "The layer tells its communicator that a later step may complete the sum, but what "
            "produces the sum takes no such flag and always reduces. Pass the decision to the "
            "producer, or do not allow the later step."
        ),
    ),
    Rule(
        id="ranks-disagree",
        title="Real ranks and the ledger disagree",
        help=(
            "A layer on real ranks added its partial sums up otherwise than the ledger says it "
            "must, or its values do not fit its counts. Either the ledger's steps or the code on "
            "the ranks is wrong: run the one case again and compare its counts rank by rank."
        ),
    ),
    Rule(
        id="reduced-twice",
        title="One block sums the same partial sums twice",
        help=(
            "Two reductions of one block run one after the other in the same case, so that the "
            "second adds up what the first has completed. On k ranks the output is about k times "
            "too large. Keep one of the two."
        ),
    ),
    Rule(
        id="reduces-after-combine",
        title="The block reduces what an all-to-all combine has completed",
        help=(
            "With an all-to-all backend the combine hands every token its complete sum back; the "
            "block's reduction then adds complete sums up. Skip the reduction where the dispatcher "
            "combines."
        ),
    ),
    Rule(
        id="replay-crash",
        title="The source's own code stops",
        help=(
            "Run as it is on in-process ranks, the layer raised in a legal deployment: sizes that "
            "do not fit a group, or ranks that enter different collectives. The message names the "
            "rank and the line."
        ),
    ),
    Rule(
        id="replay-double",
        title="The source's own code counts a partial sum more than once",
        help=(
            "Run as it is on in-process ranks, the layer hands on a tensor in which some rank's "
            "partial sum is counted several times. Find the two steps that both sum, and skip the "
            "first."
        ),
    ),
    Rule(
        id="replay-hang",
        title="The source's own code waits forever",
        help=(
            "Run as it is on in-process ranks, some ranks wait in a collective that the others "
            "never enter. A server would hang until its watchdog ends it. Let every rank of a "
            "group take the same branch."
        ),
    ),
    Rule(
        id="replay-missing",
        title="The source's own code loses a partial sum",
        help=(
            "Run as it is on in-process ranks, the layer hands on a tensor that lacks some rank's "
            "partial sum. Reduce in this case, or make the later step sum over the same ranks."
        ),
    ),
    Rule(
        id="replay-mixed",
        title="The source's own code counts some partial sums twice and loses others",
        help=(
            "Run as it is on in-process ranks, counts differ from one in both directions. Often a "
            "reduction runs over another group than the one that holds the parts."
        ),
    ),
    Rule(
        id="replay-wrong-tokens",
        title="The source's own code sums different tokens",
        help=(
            "Run as it is on in-process ranks, a partial sum of one token is added to another "
            "token. Ranks that hold different tokens must be gathered first, or summed by a "
            "reduce-scatter."
        ),
    ),
    Rule(
        id="replicated-addend",
        title="A value that every rank holds goes into a sum that is completed later",
        help=(
            "Every rank adds the same complete value to its partial sum, and a later step adds "
            "the partial sums up: the value counts once for every rank, so the output depends on "
            "how many there are. Add it on one rank only while the sum is owed, or after the "
            "reduction."
        ),
    ),
    Rule(
        id="serve-diverged",
        title="The engine gives other answers on several ranks than on one",
        help=(
            "The engine itself was started with the same weights and tokens on one rank and on "
            "several, and its log-probabilities differ by more than float32 explains. Users of "
            "this launch get wrong answers without an error. Look at the module named first."
        ),
    ),
    Rule(
        id="serve-sizes-differ",
        title="Ranks of the engine meet a collective with different sizes",
        help=(
            "The engine accepts this launch, and its ranks then enter one collective with tensors "
            "of different sizes: the model does not know this layout. The server stops or hangs "
            "in service. Refuse the launch for this model, or teach the model the layout."
        ),
    ),
    Rule(
        id="sharded-dense",
        title="A dense MLP is taken for complete and is sharded",
        help=(
            "With moe_dense_tp_size 1 a dense MLP runs on this rank's own rows and its output is "
            "taken for complete, but this model builds it sharded all the same. Its slices are "
            "not summed up, or are summed over ranks that hold other tokens. Build it replicated "
            "where the flag is set, or refuse the flag for this model."
        ),
    ),
    Rule(
        id="stale-expectation",
        title="The baseline expects a finding that is no longer there",
        help=(
            "An entry of the reviewed baseline matched nothing. The bug it accepts was fixed, or "
            "the code moved. Delete the entry, so that the bug cannot come back unseen."
        ),
        level="warning",
    ),
    Rule(
        id="sums-local-rows",
        title="Complete rows of different tokens are summed up",
        help=(
            "With moe_dense_tp_size 1 a dense MLP runs replicated on rows that only this rank "
            "has: nothing is owed. A reduction, or the next layer's fused norm, sums them up all "
            "the same and adds different tokens to each other. Do not sum, and do not leave a "
            "sum, where rows are rank-local."
        ),
    ),
    Rule(
        id="unexpected-diff",
        title="The helper and the original guard disagree where they must not",
        help=(
            "In the row shown the helper and the guard it replaced give different answers, and "
            "the site's category does not allow it. Either the category is wrong or the migration "
            "changed what the model computes."
        ),
    ),
    Rule(
        id="unused-ignore",
        title="An ignore comment that ignores nothing, or gives no reason",
        help=(
            "A comment in the source accepts a finding that is not on its line, names no known "
            "rule, or does not say why the finding is accepted. Delete it, or write "
            "`# moe-verify: ignore[rule] reason`, so that nothing comes back unseen."
        ),
        level="warning",
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in _ALL}


def rule(rule_id: str) -> Rule:
    """The rule with this id; for an id that is not listed, one that says no more than the id."""
    return RULES.get(rule_id, Rule(id=rule_id, title=rule_id.replace("-", " "), help=rule_id))
