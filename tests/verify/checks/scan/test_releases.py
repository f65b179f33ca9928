"""Released wheels: public bugs are found where they are, and are gone where they were fixed."""

import os
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

import pytest
from packaging.version import Version

from oracles import SITES
from verify.checks.prove.source import read as read_subjects
from verify.checks.pull_request.readings import compare
from verify.checks.pull_request.release import read_release
from verify.checks.scan.scan import ScanResult, scan
from verify.checks.scan.sites import read_sites
from verify.engines.sglang.library import LIBRARY
from verify.engines.sources import open_source
from verify.errors import VerifyError
from verify.interpreter.index import Index
from verify.source.source import SourceTree

pytestmark = pytest.mark.network

# files under layers/ and beside them that say what a model's flags, groups and consumers are
STOOD_ON = (
    "layers/communicator.py",
    "layers/dp_attention.py",
    "layers/layernorm.py",
    "layers/linear.py",
    "layers/moe/utils.py",
    "layer_boundary/exit.py",
    "layer_boundary/factories.py",
    "srt/server_args.py",
)
# public bug -> releases with it, file, class, method, row, first release without it
BUGS = {
    "#23734": (
        ("0.5.10", "0.5.10.post1"),
        "qwen3_moe.py",
        "Qwen3MoeSparseMoeBlock",
        "0100",
        "0.5.11",
    ),
    "#37199": (("0.5.11", "0.5.19"), "gpt_oss.py", "GptOssSparseMoeBlock", "0010", "0.5.20"),
    "#11665": (("0.5.1", "0.5.3.post3"), "glm4_moe.py", "Glm4MoeSparseMoeBlock", "0100", "0.5.4"),
}
# public bug of what layers share -> releases with it, a model that meets it, rule, words, first
# release without it
SHARED = {
    "#19918": (
        ("0.5.1", "0.5.12.post1"),
        "deepseek_v2.py",
        "sums-local-rows",
        "to the next norm",
        "0.5.13",
    ),
    "#27191": (("0.5.12", "0.5.12.post1"), "deepseek_v4.py", "lost-sum", "dp_scatter", "0.5.13"),
    "#32963": (
        ("0.5.11", "0.5.17"),
        "qwen3_moe.py",
        "group-too-narrow",
        "split over two groups",
        "0.5.18",
    ),
    "#11632": (
        ("0.5.3", "0.5.4"),
        "qwen3_moe.py",
        "lost-sum",
        "under attention data parallelism",
        "0.5.4.post1",
    ),
    "#38078": (
        ("0.5.15.post1", "0.5.19"),
        "qwen3.py",
        "sums-local-rows",
        "context group",
        "0.5.20",
    ),
    "#26845": (
        ("0.5.11", "0.5.12"),
        "qwen3_5.py",
        "replicated-addend",
        "fused into the routed",
        "0.5.15.post1",
    ),
    "deepstack": (
        ("0.5.19", "0.5.20"),
        "qwen3_vl_moe.py",
        "replicated-addend",
        "deepstack",
        "0.5.21",
    ),
}
# a block that sums behind the combine of a backend that it does not name -> releases with it, file,
# the backend, first release without it, if there is one
UNNAMED: dict[str, tuple[tuple[str, ...], str, str, str | None]] = {
    "#34887": (("0.5.10.post1", "0.5.17"), "qwen3_moe.py", "mori", "0.5.18"),
    "#34887 in another model": (("0.5.20", "0.5.23"), "hunyuan_v3.py", "mori", None),
    "#40735": (("0.5.18", "0.5.21"), "minimax_m3.py", "ascend_fuseep", "0.5.23"),
}
# the releases that the bugs of what layers share came and went with
RELEASES = sorted(
    {version for bug in SHARED.values() for version in (*bug[0], bug[-1])}, key=Version
)
Scanned = Callable[[str, str], ScanResult]


@pytest.fixture(scope="module")
def scanned() -> Scanned:
    """What a scan of a release says with the other models, but for a file's, left out."""

    @cache
    def scan_some(version: str, file: str) -> ScanResult:
        with open_source(f"sglang=={version}") as tree:
            return scan(_only(tree, _with_imports(tree, file)))

    return scan_some


@pytest.fixture
def whole(released: Callable[[str], ScanResult]) -> Scanned:
    """The same of every model: a file is no choice."""
    return lambda version, file: released(f"sglang=={version}")


@pytest.mark.parametrize("bug", BUGS)
def test_public_bug(scanned: Scanned, bug: str) -> None:
    releases, file, cls, row, fixed = BUGS[bug]

    def rows(version: str) -> set[str | None]:
        found = scanned(version, file).findings
        return {f.row for f in found if f.cls == cls and str(f.file).endswith(f"/{file}")}

    for version in releases:
        assert row in rows(version), version
    assert row not in rows(fixed)


def shown(result: ScanResult, bug: str) -> bool:
    """Whether a bug of what layers share is among the findings."""
    _, _, rule, words, _ = SHARED[bug]
    return any(f.rule == rule and words in f.message + f.sums for f in result.findings)


@pytest.mark.parametrize("bug", SHARED)
def test_public_bug_of_what_layers_share(scanned: Scanned, bug: str) -> None:
    releases, file, *_, fixed = SHARED[bug]
    assert all(shown(scanned(version, file), bug) for version in releases)
    assert not shown(scanned(fixed, file), bug)


@pytest.mark.slow
@pytest.mark.parametrize("bug", SHARED)
def test_whole_release_has_the_bug_until_it_was_fixed_and_then_in_no_model(
    whole: Scanned, bug: str
) -> None:
    test_public_bug_of_what_layers_share(whole, bug)


@pytest.mark.parametrize("bug", UNNAMED)
def test_public_bug_of_a_backend_that_a_block_does_not_name(scanned: Scanned, bug: str) -> None:
    releases, file, backend, fixed = UNNAMED[bug]

    def behind(version: str) -> bool:
        named = f"not get_moe_a2a_backend().is_{backend}()"
        return any(
            f.rule == "reduces-after-combine" and named not in f.conditions
            for f in scanned(version, file).findings
            if str(f.file).endswith(f"/{file}")
        )

    assert all(map(behind, releases))
    assert fixed is None or not behind(fixed)


@pytest.mark.parametrize("without", [False, True])
def test_19411_a_last_layer_that_is_not_told(without: bool) -> None:
    file = "sglang/srt/models/qwen3_5.py"
    told = "            is_last_layer=(layer_id == config.num_hidden_layers - 1),\n"
    with open_source("sglang==0.5.10.post1") as tree:
        text = tree.read(file)
        assert told in text
        kept = tuple(name for name in _with_imports(tree, "qwen3_5.py") if name not in file)
        text = text.replace(told, "") if without else text
        found = scan(_with(tree, file, text, models=kept)).findings
    rules = {one.rule for one in found if one.file == file}
    assert ("lost-past-end" in rules) is without


def test_the_pull_requests_22_sites_are_read() -> None:
    with open_source("sglang==0.5.11") as tree:
        read = {site.id: site for site in read_sites(Index(tree, LIBRARY))}
    for wanted in SITES:
        # the pull request's mimo_v2_flash.py was released as mimo_v2.py
        site = read[wanted.id.replace("mimo_v2_flash", "mimo_v2")]
        assert sorted(site.accepts) == sorted(wanted.accepts)
        assert sorted(site.passes) == sorted(wanted.passes)


def adds_up(result: ScanResult) -> bool:
    """Whether every reduction has one verdict, and some are covered."""
    told = sum(result.counts.values()) == len(result.sites) + len(result.set_aside)
    return told and result.counts["covered"] > 0


def test_summary_adds_up(released: Callable[[str], ScanResult]) -> None:
    assert adds_up(released("sglang==0.5.23"))


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASES)
def test_whole_releases_summary_adds_up(whole: Scanned, version: str) -> None:
    assert adds_up(whole(version, "any"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mutations_of_real_files_never_raise() -> None:
    draw = random.Random(11)
    rounds = int(os.environ.get("VERIFY_MUTATIONS", "10000"))
    with open_source("sglang==0.5.11") as tree:
        models = [p for p in tree.under("sglang/srt/models/") if "moe" in p or "deepseek" in p]
        models = [path for path in models if tree.read(path)]
        for _ in range(rounds):
            path = draw.choice(models)
            result = scan(_with(tree, path, mutated(tree.read(path), draw)))
            assert sum(result.counts.values()) == len(result.sites) + len(result.set_aside)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", ["0.5.20", "0.5.23"])
def test_mutations_of_what_models_stand_on_never_raise(version: str) -> None:
    draw = random.Random(12)
    rounds = int(os.environ.get("VERIFY_MUTATIONS", "10000")) // 20
    readings = compare(SITES)
    with open_source(f"sglang=={version}") as tree:
        paths = [path for path in tree.paths if path.endswith(STOOD_ON)]
        for _ in range(rounds):
            path = draw.choice(paths)
            broken = _with(tree, path, mutated(tree.read(path), draw), models=("qwen2_moe.py",))
            result = scan(broken)
            assert sum(result.counts.values()) == len(result.sites) + len(result.set_aside)
            for command in (read_subjects, partial(read_release, comparisons=readings)):
                # one that refuses the source says so; nothing else may come out
                with suppress(VerifyError):
                    command(broken)


def mutated(text: str, draw: random.Random) -> str:
    """`text` with a few characters replaced somewhere."""
    at = draw.randrange(len(text) + 1)
    put = draw.choice(("", "(", ")", ":", "\n", "    ", "self", "=", "*", "\0", "None", "+ 1"))
    return text[:at] + put + text[at + draw.randrange(12) :]


def _with_imports(tree: SourceTree, file: str) -> tuple[str, ...]:
    """A model's file and those of the models that it imports, by their names."""
    found: dict[str, None] = {}
    todo = [file]
    while todo:
        name = todo.pop()
        path = f"sglang/srt/models/{name}"
        if name not in found and path in tree.paths:
            found[name] = None
            todo += [f"{model}.py" for model in re.findall(r"srt\.models\.(\w+)", tree.read(path))]
    return tuple(found)


def _only(tree: SourceTree, models: tuple[str, ...]) -> SourceTree:
    """The source with the other models, but for `models`, left out."""
    kept = tuple(p for p in tree.paths if "/models/" not in p or p.rpartition("/")[2] in models)
    return replace(tree, paths=kept)


def _with(tree: SourceTree, path: str, text: str, *, models: tuple[str, ...] = ()) -> SourceTree:
    """The source with one file replaced and the other models, but for `models`, left out."""
    kept = tuple(p for p in tree.paths if "/models/" not in p or p == path or p.endswith(models))

    def load(shown: str) -> bytes:
        raw = text if shown == path else tree.read(shown)
        return raw.encode("utf-8", "surrogatepass")

    return SourceTree(package=tree.package, version=tree.version, paths=kept, _load=load)
