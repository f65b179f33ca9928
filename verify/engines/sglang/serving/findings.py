"""From a finding of scan or prove to the launches that would show it on CPU ranks; or why none.

What a finding's `launch` says comes first, then its deployment, then the settings that it takes
and its row.
"""

import re
from collections.abc import Mapping, Sequence

from verify.engines.engine import Asked
from verify.engines.layout import Layout
from verify.engines.sglang.serving.layouts import illegal
from verify.report.report import Json

OPTIONS = {
    "--tp-size": "tp",
    "--tp": "tp",
    "--tensor-parallel-size": "tp",
    "--dp-size": "dp",
    "--dp": "dp",
    "--data-parallel-size": "dp",
    "--attn-cp-size": "cp",
    "--pp-size": "pp",
    "--ep-size": "ep",
    "--ep": "ep",
    "--expert-parallel-size": "ep",
    "--moe-dp-size": "moe_dp",
    "--moe-dense-tp-size": "dense",
}
IMPLIED = ("--enable-dp-attention",)  # by the layout's dp
SIZES = {
    "tp_size": "tp",
    "dp_size": "dp",
    "attn_cp_size": "cp",
    "ep_size": "ep",
    "moe_dp_size": "moe_dp",
}
# what a deployment may say besides without being another launch: one model has every position of a
# layer, and prompts of unequal length have every padding
ANY = {
    "padding": ("max_len", "sum_len"),
    "tokens": ("even", "uneven", "zero"),
    "position": ("first", "middle", "last"),
    "shared": ("none", "sharded"),
    "context_parallel_extend": (True, False),
}

# settings that a finding takes, in its own words: what has no CPU form, and what is a layout
NOWHERE = {
    r"all-to-all backend|moe_a2a_backend": "all-to-all backends are CUDA's own kernels",
    r"dwdp_size": "--dwdp-size asks for cuda",
    r"pipeline stages|pp_size": "pipeline stages are not served",
    r"FP4 dispatcher": "the FP4 dispatcher is a CUDA kernel",
    r"fused (next )?norm|fuses the all-reduce|fused kernel|next norm": (
        "the fused all-reduce and norm is a CUDA kernel"
    ),
}
SETTINGS = {
    r"moe_dp_size > 1": Layout(tp=2, cp=2, moe_dp=2),
    r"moe_dense_tp_size": Layout(tp=2, dense=1),
}
# by flag of the row, in row order AF, RS, DP, FI
FLAGS: tuple[str | tuple[Layout, ...], ...] = (
    "the fused all-reduce and norm is a CUDA kernel (row AF)",
    # both of the block's paths; the reduce-scatter that DP stands for has as many groups as experts
    (Layout(tp=2, dp=2), Layout(tp=2, dp=2, ep=2), Layout(tp=4, dp=2, ep=4)),
    (Layout(tp=2, dp=2, ep=2), Layout(tp=4, dp=2, ep=2)),
    "the FP4 dispatcher is a CUDA kernel (row FI)",
)
PLAIN = (Layout(tp=2), Layout(tp=2, ep=2), Layout(tp=4, ep=2))

_MODEL = re.compile(r"models/(\w+)\.py")


def asked(finding: Mapping[str, Json]) -> Asked:
    """Which models, layouts and arguments to serve for a finding's JSON."""
    models = _models(finding)
    if not models:
        part = re.search(r"models/\w+/.+", str(finding.get("file") or ""))
        return Asked(
            why_not=f"{part[0]} is what models import, none itself"
            if part
            else "it names no model file"
        )
    launch, deployment = finding.get("launch"), finding.get("deployment")
    if launch and isinstance(launch, Sequence):
        found = _of_launch([str(word) for word in launch])
    elif deployment and isinstance(deployment, Mapping):
        found = _of_deployment(deployment)
    else:
        found = _of_row(finding)
    return Asked(
        models=models, layouts=found.layouts, arguments=found.arguments, why_not=found.why_not
    )


def _models(finding: Mapping[str, Json]) -> tuple[str, ...]:
    """Files of models, the finding's own place first."""
    texts = [str(finding.get(key) or "") for key in ("file", "message", "sums")]
    named = [name for text in texts for name in _MODEL.findall(text)]
    subject = str(finding.get("subject") or "")
    named += re.findall(r"(?:^|, )(\w+)/", subject)
    return tuple(dict.fromkeys(named))


def _of_launch(words: Sequence[str]) -> Asked:
    if words[0] and not words[0].startswith("-"):
        return Asked(why_not=f"it needs an environment variable: {words[0]}")
    sizes: dict[str, int] = {}
    rest: list[str] = []
    given = [part for word in words for part in word.split("=", 1)]
    while given:
        option = given.pop(0)
        if option in OPTIONS and given and given[0].isdigit():
            sizes[OPTIONS[option]] = int(given.pop(0))
        elif option in ("--model-path", "--model") and given:
            given.pop(0)
        elif option not in IMPLIED:
            rest.append(option)
    return _served(Layout(**sizes), tuple(rest))


def _of_deployment(deployment: Mapping[str, Json]) -> Asked:
    sizes: dict[str, int] = {}
    for key, value in deployment.items():
        if key in SIZES and isinstance(value, int):
            sizes[SIZES[key]] = value
        elif key == "dense_fully_dp":
            sizes["dense"] = int(bool(value))
        elif value not in ANY.get(key, ()):
            return Asked(why_not=f"{key}={value} has no form on CPU ranks")
    return _served(Layout(**sizes), ())


def _served(layout: Layout, arguments: tuple[str, ...]) -> Asked:
    if layout.tp == 1:
        return Asked(why_not="one rank: there is nothing to compare with it")
    why = illegal(layout)
    return Asked(layouts=(layout,), arguments=arguments, why_not=why and f"{layout}: {why}")


def _of_row(finding: Mapping[str, Json]) -> Asked:
    """From what the finding takes (in its message, where it has no `takes`), then its row."""
    takes = finding.get("takes")
    texts = takes if takes and isinstance(takes, Sequence) else [finding.get("message")]
    settings = " ".join(map(str, texts)).partition(" (sglang/")[0]
    for pattern, why in NOWHERE.items():
        if re.search(pattern, settings):
            return Asked(why_not=why)
    row = str(finding.get("row") or "")
    flags = [flag for flag, bit in zip(FLAGS, row, strict=False) if bit == "1"]
    for flag in flags:
        if isinstance(flag, str):
            return Asked(why_not=flag)
    for pattern, layout in SETTINGS.items():
        if re.search(pattern, settings):
            return Asked(layouts=(layout,))
    # of a row with several flags the last one's layout has the earlier ones' settings too
    last = flags[-1] if flags else PLAIN
    return Asked(layouts=last if isinstance(last, tuple) else PLAIN)
