"""`python -m verify report`."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from oracles import SITES, Site
from verify.checks.pull_request.categories import category
from verify.checks.pull_request.readings import compare
from verify.checks.pull_request.report import build
from verify.errors import VerifyError
from verify.report.report import Report

if TYPE_CHECKING:  # only `--source` and `--judge` should pay for what these import
    from verify.checks.pull_request.release import Release
    from verify.checks.pull_request.verdicts import Judged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--model`, `--category`, `--source`, `--judge`."""
    parser.add_argument("--model", metavar="NAME", help="only this model's sites, e.g. qwen3_moe")
    parser.add_argument(
        "--category", metavar="ID", help="only this category's sites: A, B, C, D-EP or D-TP"
    )
    parser.add_argument(
        "--source",
        metavar="SOURCE",
        help="look for the migrated calls in this source: a directory, a wheel, a sdist, or a "
        "requirement such as sglang==0.5.11",
    )
    parser.add_argument(
        "--judge",
        action="store_true",
        help="say whose answer is right: judge both in every legal deployment of up to 8 ranks",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Compare helper, oracles and source; raises `VerifyError` for one that there is not."""
    sites = select(SITES, model=arguments.model, category_id=arguments.category)
    return build(
        sites,
        release=None if arguments.source is None else _read(arguments.source, sites),
        judged=_judge() if arguments.judge else None,
    )


def _read(source: str, sites: Sequence[Site]) -> "Release":
    from verify.checks.pull_request.release import read_release  # noqa: PLC0415 (slow to import)
    from verify.engines.sources import open_source  # noqa: PLC0415

    with open_source(source) as tree:
        return read_release(tree, compare(sites))


def _judge() -> "Judged":
    from verify.checks.pull_request.verdicts import judged  # noqa: PLC0415 (slow to import)

    return judged()


def select(
    sites: Sequence[Site], *, model: str | None, category_id: str | None
) -> tuple[Site, ...]:
    """The sites of `model` and of the category, each where given."""
    if model is not None:
        models = sorted({site.model for site in sites})
        require_known("model", model, models, otherwise=f"there are {', '.join(models)}")
    wanted = None if category_id is None else category(category_id).id
    chosen = tuple(
        site for site in sites if model in (None, site.model) and wanted in (None, site.category)
    )
    if not chosen:
        raise VerifyError(f"model {model} has no site in category {wanted}")
    return chosen


def require_known(what: str, name: str, known: Sequence[str], *, otherwise: str) -> None:
    """Raise `VerifyError` unless `name` is one of `known`.

    The message names those that contain it or are spelt like it, else it says `otherwise`.
    """
    if name in known:
        return
    near = [one for one in known if name and name in one] or get_close_matches(name, known, n=3)
    advice = f"did you mean {' or '.join(near[:3])}?" if near else otherwise
    raise VerifyError(f"no {what} {name!r}; {advice}")
