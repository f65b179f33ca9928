"""Renderers: `render(report) -> str`, one module each, listed here."""

from collections.abc import Callable
from importlib import import_module

from verify.report import Report

RENDERERS: dict[str, str] = {
    "table": "verify.render.table",
    "html": "verify.render.html",
    "sarif": "verify.render.sarif",
    "github": "verify.render.github",
    "junit": "verify.render.junit",
    "digest": "verify.render.digest",
    "markdown": "verify.render.markdown",
    "json": "verify.render.json",
}


def render(report: Report, *, format_name: str) -> str:
    """The report as text; `format_name` is a key of `RENDERERS`."""
    renderer: Callable[[Report], str] = import_module(RENDERERS[format_name]).render
    return renderer(report)
