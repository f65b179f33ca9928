"""The Python package that SGLang is, and in which shape it sums up after its experts."""

from typing import Literal

from verify.engines.sglang import published
from verify.engines.sglang.distributions import DISTRIBUTIONS
from verify.engines.sglang.vocabulary import MODELS, UTILS_FILE
from verify.errors import VerifyError
from verify.source.source import Package, SourceTree

Generation = Literal[
    "open-coded", "helper-arguments", "helper-context", "layer-boundary", "unknown"
]
SERVER_FILE = "sglang/srt/server_args.py"
ARGUMENTS = "sglang/srt/arg_groups/"  # where later releases keep what is in that file
BOUNDARIES = "sglang/srt/layers/layer_boundary/"


def generation(tree: SourceTree) -> Generation:
    """Which shape the post-experts reduction has, told by the source and not by its version."""
    if tree.under(BOUNDARIES):
        return "layer-boundary"
    try:
        text = tree.read(UTILS_FILE) if UTILS_FILE in tree.paths else ""
    except VerifyError:
        return "unknown"
    _, defined, body = text.partition("def should_skip_post_experts_all_reduce(")
    if defined:
        takes_flags = "use_reduce_scatter" in body.partition(":\n")[0]
        return "helper-arguments" if takes_flags else "helper-context"
    return "open-coded" if tree.under(MODELS) else "unknown"


PACKAGE = Package(
    name="sglang",
    inside="srt",
    distributions=DISTRIBUTIONS,
    generation=generation,
    web=published.web,
    requirement=published.requirement,
)
