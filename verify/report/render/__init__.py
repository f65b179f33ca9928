"""Renderers: `render(report) -> str`, one module each, listed here."""

from collections.abc import Callable
from importlib import import_module

from verify.report.report import Report

RENDERERS: dict[str, str] = {
    "table": "verify.report.render.table",
    "concise": "verify.report.render.concise",
    "html": "verify.report.render.html",
    "sarif": "verify.report.render.sarif",
    "github": "verify.report.render.github",
    "junit": "verify.report.render.junit",
    "digest": "verify.report.render.digest",
    "markdown": "verify.report.render.markdown",
    "json": "verify.report.render.json",
}


def render(report: Report, *, format_name: str, terminal: bool = False) -> str:
    """The report as text; `format_name` is a key of `RENDERERS`.

    `terminal` where it goes to standard output, which shows colours where it is a terminal.
    """
    module = import_module(RENDERERS[format_name])
    if terminal and format_name == "table":
        text: str = module.render(report, on=module.page(terminal=True))
        return text
    renderer: Callable[[Report], str] = module.render
    return renderer(report)
