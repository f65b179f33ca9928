"""The oracles as data: complete, consistent, and blind to the predicate they judge."""

import ast
from pathlib import Path

import pytest

import oracles
from helper import SKIP_REASONS
from oracles import SITES, Site

FOLDER = Path(oracles.__file__).parent
FLAGS = {reason.flag: reason for reason in SKIP_REASONS}
KEYWORDS = {reason.name: reason.flag for reason in SKIP_REASONS if reason.value is None}
ALLOWED = {"oracles", "collections", "dataclasses", "typing"}
every_site = pytest.mark.parametrize("site", SITES, ids=lambda site: site.id)


def names_in(guard: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(guard)) if isinstance(node, ast.Name)}


def test_22_sites_in_15_models() -> None:
    assert len(SITES) == 22
    assert len({site.model for site in SITES}) == 15
    assert len({site.id for site in SITES}) == 22


def test_one_file_a_model_and_every_file_is_listed() -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")}
    assert files == {site.model for site in SITES}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_no_oracle_imports_beyond_its_own_package(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in ALLOWED
        assert not isinstance(node, ast.Import)


@every_site
def test_a_guard_names_flags_only(site: Site) -> None:
    assert names_in(site.guard) <= FLAGS.keys()


@every_site
def test_a_guard_reads_no_flag_that_forward_does_not_receive(site: Site) -> None:
    arguments = names_in(site.guard) & set(KEYWORDS.values())
    assert arguments <= set(site.accepts)


@every_site
def test_the_migrated_call_passes_what_forward_receives(site: Site) -> None:
    assert set(site.passes.values()) == set(site.accepts)
    assert all(KEYWORDS[keyword] == flag for keyword, flag in site.passes.items())


@every_site
def test_path_collective_and_gate_agree(site: Site) -> None:
    group = {
        "moe_expert_parallel_all_reduce": ("EP", "self.ep_size", "moe_ep"),
        "moe_tensor_model_parallel_all_reduce": ("TP", "self.tp_size", "moe_tp"),
        "tensor_model_parallel_all_reduce": ("TP", "self.tp_size", "tp"),
    }
    assert (site.path, site.size_gate, site.size_world) == group[site.collective]


@every_site
def test_a_model_reduces_over_the_world_once_or_over_its_parts_twice(site: Site) -> None:
    siblings = {
        other.size_world
        for other in SITES
        if (other.model, other.cls, other.method) == (site.model, site.cls, site.method)
    }
    assert siblings in ({"tp"}, {"moe_ep", "moe_tp"})


@every_site
def test_provenance(site: Site) -> None:
    first, last = site.lines
    assert 0 < first <= last < first + 20
    assert site.repository == "sgl-project/sglang"
    assert len(site.commit) == 40
    assert site.file == f"sglang/srt/models/{site.model}.py"


@every_site
def test_only_categories_without_a_definition_are_inferred(site: Site) -> None:
    assert site.category_inferred == (site.category[0] in "CD")
