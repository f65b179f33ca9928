"""`[tool.moe-allreduce-verify]` in pyproject.toml: defaults of a project, which options override.

select, ignore: lists of rules; fail-on: a choice of it
expect: the baseline of `scan`, relative to the file
format: an output format; offline: true or false
"""

import argparse
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from verify.errors import VerifyError
from verify.report.choices import FAIL_ON, rules_in
from verify.report.render import RENDERERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
TABLE = "moe-allreduce-verify"


def defaults(folder: Path) -> dict[str, Any]:
    """Argument name -> value, of the closest file above `folder` that has the table.

    Raises `VerifyError` for a file that is no TOML, a key or a value there is not.
    """
    for place in (folder, *folder.parents):
        file = place / FILE
        table = _table(file) if os.access(file, os.R_OK) else None
        if table is not None:
            return {name: value for key in table for name, value in _value(file, key, table)}
        # a project ends where its repository does
        if os.path.exists(place / ".git"):
            break
    return {}


def applied(parser: argparse.ArgumentParser, values: Mapping[str, Any], *, command: str) -> None:
    """Make the values the defaults of the command's own arguments."""
    own = {action.dest for action in parser._actions}
    if command != "scan":
        # a baseline holds one command's findings
        own -= {"expect"}
    parser.set_defaults(**{name: value for name, value in values.items() if name in own})


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        # a pipe of that name would be waited for
        if not file.is_file():
            raise VerifyError(f"cannot read {file}: not a file")
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerifyError(f"cannot read {file}: {error}") from error
    table = content.get("tool", {}).get(TABLE)
    if table is not None and not isinstance(table, dict):
        raise VerifyError(f"{file}: [tool.{TABLE}] is not a table")
    return table


def _value(file: Path, key: str, table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(argument name, value), for `set_defaults`."""
    value = table[key]
    try:
        match key, value:
            case (("select" | "ignore"), list()) if all(isinstance(one, str) for one in value):
                return [(key, [rules_in(value, option=key)])]
            case "fail-on", str() if value in FAIL_ON:
                return [("fail_on", value)]
            case "format", str() if value in RENDERERS:
                return [(key, value)]
            case "expect", str():
                return [(key, file.parent / value)]
            case "offline", bool():
                return [(key, value)]
    except VerifyError as error:
        raise VerifyError(f"{file}: {key}: {error}") from error
    wants = {
        "select": "a list of rules",
        "ignore": "a list of rules",
        "fail-on": f"one of {', '.join(FAIL_ON)}",
        "format": f"one of {', '.join(RENDERERS)}",
        "expect": "a file's name",
        "offline": "true or false",
    }
    if key in wants:
        raise VerifyError(f"{file}: {key} = {value!r}: want {wants[key]}")
    near = get_close_matches(key, wants, n=1)
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(wants)}"
    raise VerifyError(f"{file}: [tool.{TABLE}] has no {key!r}; {advice}")
