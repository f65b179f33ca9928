"""A folder a question that is asked of a source; the rules of each are handed to the reports."""

from pathlib import Path

from verify.report.rules import RULES

for _folder in sorted(Path(__file__).parent.glob("*/rules")):
    RULES.collect(_folder, package=f"{__name__}.{_folder.parent.name}.{_folder.name}")
