"""pytest plugin: `--moe-verify-source SOURCE` makes every reduction site of a source a test.

`--moe-verify-serve MODEL:LAYOUT` makes a launch of the engine itself one more.

This module is loaded into every pytest run of an environment that has the package, so it imports
nothing but pytest until the option is given.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("moe-allreduce-verify")
    group.addoption(
        "--moe-verify-source",
        metavar="SOURCE",
        help="test every reduction site of a source: directory, wheel, sdist, requirement",
    )
    group.addoption(
        "--moe-verify-expect", metavar="FILE", help="reviewed findings to accept (saved JSON)"
    )
    group.addoption(
        "--moe-verify-serve",
        action="append",
        metavar="MODEL:LAYOUT",
        help="RUN the source whole as well: several ranks against one (qwen3_moe:tp2.dp2.ep2)",
    )
    group.addoption(
        "--moe-verify-python", metavar="PATH", help="has the engine's packages, for serving it"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that every item carries."""
    config.addinivalue_line("markers", "moe_verify: a reduction site, by --moe-verify-source")


# before -k, -m and --deselect choose, so that they see the sites too
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the source's sites, and the launches that are to be served."""
    source = config.getoption("--moe-verify-source")
    if source:
        from verify.cli.pytest_items import site_items  # noqa: PLC0415 (only who asks pays for it)

        items += site_items(session, source, expect=config.getoption("--moe-verify-expect"))
    served = config.getoption("--moe-verify-serve")
    if served:
        from verify.cli.pytest_serve import serve_items  # noqa: PLC0415

        items += serve_items(session, source, served)
