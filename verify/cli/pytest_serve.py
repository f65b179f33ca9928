"""Test items that serve the source: one a model and layout, several ranks against one."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from verify.checks.serve.case import Case
from verify.checks.serve.layout import chosen
from verify.checks.serve.report import what
from verify.checks.serve.sweep import Sweep, opened
from verify.cli.pytest_items import Source
from verify.errors import VerifyError
from verify.report.progress import tell


class ServedFailureError(Exception):
    """A launch is not exact; says how."""


class Serving:
    """The engine that all items of a run share: started by the first of them."""

    def __init__(self, source: str, python: str | None) -> None:
        self._source, self._python = source, Path(python) if python else None
        self._stack = ExitStack()
        self._sweep: Sweep | None = None

    def sweep(self) -> Sweep:
        """The open sweep. Raises `VerifyError` where there can be none."""
        if self._sweep is None:
            sweep = opened(self._source, python=self._python, results=(), tell=tell)
            self._sweep = self._stack.enter_context(sweep)
        return self._sweep

    def close(self) -> None:
        """End the engine."""
        self._stack.close()


class Served(pytest.Item):
    """Passes where several ranks say what one says; a refused launch is skipped."""

    def __init__(self, *, serving: Serving, model: str, layout: str, **node: Any) -> None:
        super().__init__(**node)
        self._serving, self._model, self._layout = serving, model, layout
        self.add_marker("moe_verify")

    def runtest(self) -> None:
        """Serve; raise for whatever is not exact."""
        sweep = self._serving.sweep()
        (layout,) = chosen(sweep.engine, [self._layout], everything=False)
        result = sweep.serve(Case(model=self._model, layout=layout))
        if result.outcome == "refused":
            pytest.skip(f"the server refuses: {result.reason}")
        if result.outcome != "exact":
            raise ServedFailureError(f"{self.name}: {result.outcome}: {what(result)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """One line; no traceback of this plugin."""
        if isinstance(excinfo.value, ServedFailureError | VerifyError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, int, str]:
        """File, line counted from 0, name."""
        return str(self.parent.name if self.parent else ""), 0, self.name


def serve_items(
    session: pytest.Session, source: str | None, served: Sequence[str]
) -> list[pytest.Item]:
    """An item for each `MODEL:LAYOUT`. Raises pytest's usage error for another text."""
    if not source:
        raise pytest.UsageError("--moe-verify-serve needs --moe-verify-source")
    serving = Serving(source, session.config.getoption("--moe-verify-python"))
    session.config.add_cleanup(serving.close)
    parent = Source.from_parent(session, name=source, nodeid=source)
    items: list[pytest.Item] = []
    for text in dict.fromkeys(served):
        model, colon, layout = text.partition(":")
        if not (model and colon and layout):
            raise pytest.UsageError(f"--moe-verify-serve {text}: want MODEL:LAYOUT")
        name = f"serve::{model}::{layout}"
        item = Served.from_parent(parent, name=name, serving=serving, model=model, layout=layout)
        items.append(item)
    return items
