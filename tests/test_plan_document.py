"""`docs/plan.md` is a program: its blocks run in order, in one namespace."""

import re
from dataclasses import fields
from pathlib import Path

from helper import Plan

TEXT = (Path(__file__).parent.parent / "docs" / "plan.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_worked_example_runs():
    namespace = {}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(compile(block, "docs/plan.md", "exec"), namespace)


def test_the_field_table_names_every_field():
    for field in fields(Plan):
        assert f"`{field.name}`" in TEXT
