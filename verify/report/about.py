"""What this tool is called, which version it is and where it is kept: installed or a checkout."""

import sys
import traceback
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

NAME = "moe-allreduce-verify"
UNKNOWN = "0+unknown"
CHECKOUT = Path(__file__).parents[2]
RULES_PAGE = "docs/rules.md"


def program() -> str:
    """What this tool was called by, for what somebody is to type next."""
    return NAME if Path(sys.argv[0]).name.startswith(NAME) else "python -m verify"


@cache
def version() -> str:
    """The version, `0+unknown` where neither an installation nor a checkout says it."""
    try:
        return metadata(NAME)["Version"]
    except PackageNotFoundError:
        return str(_project().get("version", UNKNOWN))


@cache
def addresses() -> dict[str, str]:
    """The project's URLs by their labels."""
    try:
        told = metadata(NAME).get_all("Project-URL") or []
    except PackageNotFoundError:
        return dict(_project().get("urls", {}))
    return {label: address for label, _, address in (one.partition(", ") for one in told)}


def home() -> str:
    """Its repository; until that is decided, the first of its addresses."""
    known = addresses()
    return known.get("Repository") or next(iter(known.values()), "")


def rule_address(rule_id: str) -> str:
    """Where a rule is explained: its anchor on the page of rules, once that has an address."""
    page = f"{home()}/blob/HEAD/{RULES_PAGE}" if "Repository" in addresses() else home()
    return f"{page}#{rule_id}"


def internal_error(error: Exception) -> str:
    """What is said of an error of the tool itself: what, at which line, where to report it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    known = addresses()
    to = known.get("Issues") or known.get("Repository") or "CONTRIBUTING.md says how"
    said = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    return f"internal error: {said}; please report it: {to}"


def _project() -> dict[str, Any]:
    """The table `project` of the checkout's pyproject.toml, empty without one."""
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 (only a checkout needs it)
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        content = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    project = content.get("project", {})
    return project if project.get("name") == NAME else {}
