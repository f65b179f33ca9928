"""pytest plugin: `--moe-verify-source SOURCE` makes every reduction site of a source a test.

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
        help="test every reduction site of an SGLang source: directory, wheel, sdist, requirement",
    )
    group.addoption(
        "--moe-verify-expect", metavar="FILE", help="reviewed findings to accept (saved JSON)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that every item carries."""
    config.addinivalue_line("markers", "moe_verify: a reduction site, by --moe-verify-source")


# before -k, -m and --deselect choose, so that they see the sites too
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the source's sites."""
    source = config.getoption("--moe-verify-source")
    if source:
        from verify.pytest_items import site_items  # noqa: PLC0415 (only who asks pays for it)

        items += site_items(session, source, expect=config.getoption("--moe-verify-expect"))
