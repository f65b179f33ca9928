"""Renderers: `render(report) -> str`, one module each, listed here."""

from collections.abc import Callable
from importlib import import_module

from verify.report import Report

RENDERERS: dict[str, str] = {
    "table": "verify.render.table",
    "concise": "verify.render.concise",
    "html": "verify.render.html",
    "sarif": "verify.render.sarif",
    "github": "verify.render.github",
    "junit": "verify.render.junit",
    "digest": "verify.render.digest",
    "markdown": "verify.render.markdown",
    "json": "verify.render.json",
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
