"""What serving a whole SGLang release on CPU ranks takes."""

from pathlib import Path

from verify.engines.engine import Engine, Environment
from verify.engines.sglang.distributions import DISTRIBUTIONS
from verify.engines.sglang.serving import findings, layouts, tables

ENGINE = Engine(
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
)
