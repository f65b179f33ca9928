"""The lines of a source around its findings, for those who show them."""

from collections.abc import Iterable, Iterator

from verify.errors import VerifyError
from verify.report.report import Finding
from verify.source.source import SourceTree

AROUND = 1  # lines before and after


def excerpts(tree: SourceTree, findings: Iterable[Finding]) -> dict[str, dict[int, str]]:
    """Each file's lines by number, around the findings' places and their related places.

    A file that cannot be read has none.
    """
    wanted: dict[str, set[int]] = {}
    for file, line in _places(findings):
        wanted.setdefault(file, set()).update(range(line - AROUND, line + AROUND + 1))
    found = {}
    for file, numbers in sorted(wanted.items()):
        try:
            lines = tree.read(file).splitlines()
        except VerifyError:
            continue
        found[file] = {n: lines[n - 1] for n in sorted(numbers) if 0 < n <= len(lines)}
    return found


def _places(findings: Iterable[Finding]) -> Iterator[tuple[str, int]]:
    for finding in findings:
        if finding.file is not None and finding.line:
            yield finding.file, finding.line
        yield from ((place.file, place.line) for place in finding.related)
