"""What serving a whole SGLang release takes, on CPU ranks and on GPUs."""

from dataclasses import replace
from pathlib import Path

from verify.engines.engine import BFLOAT16, Engine, Environment
from verify.engines.sglang.distributions import DISTRIBUTIONS
from verify.engines.sglang.serving import findings, layouts, tables

_CPU = Engine(
    name="sglang",
    home=Path(__file__).parent,
    package=tables.PACKAGE,
    distributions=DISTRIBUTIONS,
    drive=tables.DRIVE,
    variables=tables.VARIABLES,
    environment=Environment(
        newest=tables.NEWEST, size=tables.SIZE, requirements=tables.requirements
    ),
    ranks=layouts.ranks,
    illegal=layouts.illegal,
    subsets=layouts.SUBSETS,
    layouts=layouts.every,
    launch=tables.launch,
    command_line=tables.command_line,
    parallel=tables.PARALLEL,
    sizes_differ=tables.SIZES_DIFFER,
    peer_gone=tables.PEER_GONE,
    asked=findings.asked,
    case_s=tables.CPU_CASE_S,
)
_GPU = replace(
    _CPU,
    drive=tables.GPU_DRIVE,
    variables=tables.GPU_VARIABLES,
    command_line=tables.gpu_command_line,
    device="cuda",
    precision=BFLOAT16,
    caged=False,
    fresh=True,
    case_s=tables.GPU_CASE_S,
)
ENGINE = replace(_CPU, devices={_GPU.device: _GPU})
