"""What replay says of each finding of the scan: `python docs/findings/replayed.py sglang==0.5.20`.

Each layer class that a finding names is run on the deployment of the finding's launch, in every
padding. They agree where one of them shows the finding's kind in some part of the layer.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from verify.checks.replay.decoders import Decoder, Models
from verify.checks.replay.deployments import Execution, executable
from verify.checks.replay.processes import Case, run_cases
from verify.checks.scan.scan import scan
from verify.emulator.tree import SourceFiles
from verify.engines.sources import fetch, open_source
from verify.report.report import Finding

# a scan's words in replay's: what is summed twice holds other tokens where rows are local
KINDS: Mapping[str | None, set[str]] = {
    "lost": {"missing"},
    "past the end": {"missing"},
    "mixed": {"mixed"},
    "twice": {"double"},
    "double": {"double", "mixed"},
    "backend": {"double", "mixed"},
    "combined": {"double", "mixed"},
}


def options(launch: tuple[str, ...]) -> dict[str, str]:
    """A command line's options; a variable of the environment stands under its own name."""
    found: dict[str, str] = {}
    name = ""
    for word in launch:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = ""
        elif name:
            found[name] = word
        else:
            found[word.partition("=")[0]] = ""
    return found


def deployments(launch: tuple[str, ...]) -> Iterator[Execution]:
    """Those of four ranks that a launch leads to."""
    asked = options(launch)
    if not launch or any(name.isupper() for name in asked):
        return
    stages = int(asked.get("pp_size", 1))
    backend, weights = asked.get("moe_a2a_backend", ""), "dwdp_size" in asked
    ranks = 4 // stages
    for one in executable(4):
        config = one.config
        spans = backend or weights
        if (
            (config.tp_size, one.stages, one.all_to_all, one.dwdp)
            == (ranks, stages, backend, weights)
            and config.attn_dp_size == (4 if weights else int(asked.get("dp_size", 1)))
            and config.ep_size == (4 if spans else min(ranks, int(asked.get("ep_size", 1))))
            and config.moe_dp_size == int(asked.get("moe_dp_size", 1))
            and config.attn_cp_size == int(asked.get("attn_cp_size", 1))
            and (config.quantization or "") == asked.get("quantization", "")
            and (one.fusion != "off") == any("fusion" in name for name in asked)
            and (weights or one.dense_fully_dp == (asked.get("moe_dense_tp_size") == "1"))
            and one.tokens == "even"
        ):
            yield one


def shown(result: Mapping[str, Any]) -> set[str]:
    """What the layer as a whole, and each part of it, came to."""
    return {result["kind"], *(result.get("producers") or {}).values()}


def main(source: str) -> None:
    """Print what does not agree, and how many do."""
    with open_source(source) as tree:
        findings = scan(tree).findings
    with open_source(source, below="") as tree:
        models = Models(SourceFiles(tree))
        decoders = [one for name in models.names for one in models.decoders(name)]
    asked: list[tuple[Finding, list[tuple[Decoder, Execution]]]] = []
    for finding in findings:
        named = [one for one in decoders if one.cls in (finding.subject or "").split(", ")]
        layouts = list(deployments(finding.launch))
        pairs = [
            (layer, layout)
            for layer in named
            for layout in layouts
            if layer.boundary or not layout.config.enable_dp_attention
        ]
        asked.append((finding, pairs))
    servers: dict[Execution, dict[tuple[Decoder, Execution], Case]] = {}
    for _, pairs in asked:
        for layer, layout in pairs:
            case = Case(decoder=layer, deployment=layout)
            servers.setdefault(layout.server, {})[layer, layout] = case
    batches = [list(cases.values()) for cases in servers.values()]
    results = {
        (case.decoder, case.deployment): result
        for case, result in run_cases(str(fetch(source)), batches, jobs=1)
    }
    said: Counter[str] = Counter()
    for finding, pairs in asked:
        got = [results[pair] for pair in pairs]
        ran = sorted({str(one["kind"]) for one in got} - {"cannot run"})
        if not got:
            answer = "not asked"
        elif any(shown(one) & KINDS[finding.kind] for one in got):
            answer = "agrees"
        else:
            answer = "/".join(ran) or "cannot run"
        said[answer] += 1
        if answer != "agrees":
            why = next((str(one["why"]) for one in got if one["why"]), "")
            place = f"{finding.file}:{finding.line}"
            sys.stdout.write(f"{answer} {finding.rule} {place} {finding.row} {why[:150]}\n")
    sys.stdout.write(f"{source} {len(findings)} {dict(said)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
