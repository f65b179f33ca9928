"""Whether the engine ran a mutant where a finding says that it is wrong.

A finding names its launch, what it needs, and the model whose file or layers it is of. What asks
for a backend, a kernel, a variable of the environment or a group that no launch of the judge had,
or for a model that it did not run, has no verdict there.
"""

from collections.abc import Mapping
from typing import Any

from tests.mutation.engine import layout
from tests.mutation.strata import ROOT

# what the judge's launches set
OPTIONS = {"--tp-size", "--dp-size", "--enable-dp-attention", "--ep-size", "--moe-dense-tp-size"}
TAKES = {"moe_dense_tp_size == 1", "moe_ep_size > 1"}
# by option of a finding, what a layout's words have that it ran in
WORDS = {"--dp-size": "dp2", "--ep-size": "ep", "--moe-dense-tp-size": "dense1"}
# of a deployment, what a batch is like
BATCH = ("padding", "tokens", "allow_reduce_scatter")
# conditions that hold on an accelerator only
ELSEWHERE = ("get_is_capture_mode()", "alt_stream is not None", "_is_cuda", "_is_hip", "_is_npu")


def judged_there(
    row: Mapping[str, Any],
    finding: Mapping[str, Any],
    *,
    outcomes: tuple[str, ...] = ("exact", "diverged"),
) -> bool:
    """Whether one of the mutant's launches, that ended so, is one that the finding speaks of."""
    options = {word for word in finding.get("launch", ()) if not word[:1].isdigit()}
    ran = [
        each for each in row["launches"] if each["layout"] != "tp1" and each["outcome"] in outcomes
    ]
    return (
        not finding.get("needs")
        and options - {"auto"} <= OPTIONS
        and set(finding.get("takes", ())) <= TAKES
        and not set(finding.get("conditions", ())) & set(ELSEWHERE)
        and any(
            _of(each, finding)
            and _laid_out(each, finding)
            and all(WORDS[option] in each["layout"] for option in options & set(WORDS))
            for each in ran
        )
    )


def _of(launch: Mapping[str, Any], finding: Mapping[str, Any]) -> bool:
    """Whether a launch runs what the finding is of: a model's file, or shared code."""
    file = finding.get("file") or ""
    if not file and "/" in (finding.get("subject") or ""):
        return any(
            each.partition("/")[0] == launch["model"] for each in finding["subject"].split(", ")
        )
    return not file.startswith(f"{ROOT}/models/") or file == f"{ROOT}/models/{launch['model']}.py"


def _laid_out(launch: Mapping[str, Any], finding: Mapping[str, Any]) -> bool:
    """Whether a launch is the deployment that a finding names, where that is all it names: one that
    says how to start the server is known by the options.
    """
    named = dict(finding.get("deployment") or {})
    if not named or finding.get("launch"):
        return True
    at = layout(launch["layout"])
    ran = {"tp_size": at.tp, "ep_size": at.ep, "dp_size": at.dp}
    told = {name: named.pop(name, 1) for name in ran}
    # what a batch is like is no part of the launch; all else was at its default
    others = {value for name, value in named.items() if name not in BATCH}
    return told == ran and others <= {1, "none", False}
