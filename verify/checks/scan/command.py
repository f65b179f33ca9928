"""`python -m verify scan SOURCE`: does every reduction's guard agree with its consumer?"""

import argparse
from dataclasses import replace

from verify.checks.scan.approximated import as_json, as_table, in_words
from verify.checks.scan.scan import JudgedSite, ScanResult, scan
from verify.checks.scan.whole import not_analysed, unresolved
from verify.engines.sources import open_source, package, reading
from verify.errors import VerifyError
from verify.logic.conjuncts import shortened
from verify.report import baseline
from verify.report.excerpts import excerpts
from verify.report.ignores import apply_ignores, read_ignores
from verify.report.render.words import counted
from verify.report.report import Finding, Json, Report, TableSection

ENGINE, PACKAGE = reading(), package()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE: a directory, an archive or a requirement."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=f"an {ENGINE.title} checkout, an installed {PACKAGE.name} folder, a wheel, a sdist, "
        f"a git revision (PATH@REV), or {PACKAGE.requirement('0.5.11')}",
    )
    baseline.add_argument(parser)


def run(arguments: argparse.Namespace) -> Report:
    """Scan the source. Raises `VerifyError` where there is nothing to look at."""
    with open_source(arguments.source) as tree:
        result = scan(tree)
        code = excerpts(tree, result.findings)
        ignores = read_ignores(tree)
    reductions = result.sites or result.set_aside
    if not (result.findings or result.renamed or (result.layers and reductions)):
        unread = f"; {len(result.unread)} not read: {result.unread[0]}" if result.unread else ""
        raise VerifyError(
            f"{arguments.source}: nothing to look at: {counted(result.layers, 'layer')}, "
            f"{counted(sum(result.counts.values()), 'reduction')}{unread}; is it the folder that "
            f"holds {PACKAGE.name}'s {PACKAGE.inside}?"
        )
    made = replace(
        report(result),
        code=code,
        web=tree.package.web(tree.version),
        requirement=tree.package.requirement(tree.version),
    )
    return apply_ignores(made, ignores)


def report(result: ScanResult) -> Report:
    """The scan's result for renderers."""
    names = {"finding": "guarded wrongly"}  # the site; a finding may be of several or none
    counts = ", ".join(f"{n} {names.get(name, name)}" for name, n in result.counts.items())
    total = sum(result.counts.values())
    unread = f"; {len(result.unread)} not read" if result.unread else ""
    followed_nowhere = (one for one in result.sites if one.verdict == "unresolved")
    findings = (
        *map(not_analysed, (*result.unread, *result.renamed)),
        *(unresolved(one.site, one.why) for one in followed_nowhere),
        *result.findings,
    )
    sections = [
        TableSection(
            title="Reductions of MLP and MoE outputs",
            columns=("site", "reduction", "guard", "verdict", "why"),
            rows=tuple(_row(judged) for judged in result.sites),
            more=True,
        )
    ]
    if result.unread:
        sections.append(
            TableSection(
                title="Not read", columns=("what",), rows=tuple((line,) for line in result.unread)
            )
        )
    sections += as_table(result.approximated)
    return Report(
        command="scan",
        title=f"{result.name} {result.version} ({result.generation})",
        summary=f"{counted(total, 'reduction')} in {counted(result.layers, 'layer')}: {counts}; "
        f"{counted(len(findings), 'finding')}{unread}" + in_words(result.approximated),
        payload={
            "source": {
                "name": result.name,
                "version": result.version,
                "generation": result.generation,
            },
            "counts": {**result.counts, "total": total, "layers": result.layers},
            "sites": [_json(judged) for judged in result.sites],
            "refused": [_refused(one) for one in result.refused],
            "set_aside": result.set_aside,
            "untold": result.untold,
            "unread": result.unread,
            "approximated": as_json(result.approximated),
        },
        sections=tuple(sections),
        findings=findings,
    )


def _refused(one: Finding) -> dict[str, Json]:
    """What would be wrong, and where the source refuses every launch that leads there."""
    return {
        "rule": one.rule,
        "file": one.file,
        "line": one.line,
        "subject": one.subject,
        "row": one.row,
        "refused": one.refused,
    }


def _row(judged: JudgedSite) -> tuple[str, ...]:
    site = judged.site
    return (
        f"{ENGINE.local(site.file)}:{site.line}",
        f"{site.collective} ({site.path})",
        shortened(site.guard, width=120),
        judged.verdict,
        judged.why,
    )


def _json(judged: JudgedSite) -> dict[str, Json]:
    site = judged.site
    return {
        "file": site.file,
        "line": site.line,
        "cls": site.cls,
        "method": site.method,
        "collective": site.collective,
        "path": site.path,
        "guard": site.guard,
        "skips_on": site.skips_on,
        "verdict": judged.verdict,
        "why": judged.why,
    }
