"""The command with the toy engine in the registry: `python toyrun.py serve ...`."""

import re
import sys
from dataclasses import replace
from pathlib import Path

from verify.checks.serve import sweep
from verify.cli import command_line
from verify.engines.sglang.serving import ENGINE

SAMPLES = Path(__file__).parent


def toy():
    """An engine whose source is the samples' folder."""
    return replace(
        ENGINE,
        name="toy",
        home=SAMPLES / "toyengine",
        package="toyengine",
        drive="toyserver",
        variables={},
        command_line=lambda model, folder, words: list(words),
        sizes_differ=re.compile("sizes differ"),
    )


if __name__ == "__main__":
    sweep.engines = lambda: (toy(),)
    sys.exit(command_line.main(sys.argv[1:]))
