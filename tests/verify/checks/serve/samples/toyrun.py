"""The command with the toy engine in the registry: `python toyrun.py COUNT serve ...`."""

import re
import sys
from dataclasses import replace
from pathlib import Path

from verify import _cli
from verify.checks.serve import sweep
from verify.engines.sglang.serving import ENGINE

SAMPLES = Path(__file__).parent


def toy(count):
    """An engine whose server writes a line a run to `count`."""
    return replace(
        ENGINE,
        name="toy",
        home=SAMPLES / "toyengine",
        package="toyengine",
        drive="toyserver",
        variables={"COUNT": str(count)},
        command_line=lambda model, folder, words: list(words),
        sizes_differ=re.compile("sizes differ"),
    )


if __name__ == "__main__":
    sweep.engines = lambda: (toy(sys.argv[1]),)
    sys.exit(_cli.main(sys.argv[2:]))
