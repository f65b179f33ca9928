"""The order of tests, a small source, and reports made by hand: every kind of section, and hostile
strings in all.
"""

import gc
import os
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import verify.checks  # noqa: F401 (renderers look rules up, and each check has its own)
from verify.checks.scan.scan import scan
from verify.engines.sources import open_source
from verify.report.report import Finding, GridLine, GridSection, RanksSection, Report, TableSection

# before anything imports torch: tests run side by side, and threads that wait for a core spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

# modules and tests stay: to look through them again and again for garbage takes a sixth of the time
gc.set_threshold(100_000, 20, 50)

# how long an example takes says how busy the machine is, not whether the example is right
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

FLAGS = ("AF", "RS", "DP", "FI")
ROWS = tuple("".join(bits) for bits in product("01", repeat=4))


ROOT = Path(__file__).parent.parent
SCAN = "tests/verify/checks/scan"
# what takes longest, so that it comes first and workers end together; files in one line share what
# is made once a process
LONGEST = (
    ("gpu_tests/test_ranks.py",),
    (
        *(f"{SCAN}/test_{name}.py" for name in ("releases", "triage", "first_screen")),
        "tests/browser/test_html.py",
    ),
    ("tests/test_readme.py",),
    ("tests/verify/checks/replay/test_command.py",),
    ("tests/gpu_tests/test_command.py",),
    ("tests/gpu_tests/test_guards_on_ranks.py",),
    ("tests/verify/checks/prove/test_planned.py",),
    ("tests/verify/checks/prove/test_planned_reasons.py",),
    ("tests/verify/checks/prove/test_source_releases.py",),
    ("tests/gpu_tests/test_faults.py",),
    ("tests/verify/checks/prove/test_source.py",),
    ("tests/verify/checks/serve/test_calibrate.py",),
    ("tests/verify/checks/serve/test_environment.py",),
    ("tests/verify/report/test_ending.py",),
    ("tests/test_skip_reason.py",),
)
PLACES = {file: place for place, files in enumerate(LONGEST) for file in files}


def pytest_collection_modifyitems(items):
    """The longest first."""
    gone = [file for file in PLACES if not (ROOT / file).is_file()]
    if gone:
        raise pytest.UsageError(f"tests/conftest.py names files that are not there: {gone}")
    items.sort(key=lambda item: PLACES.get(item.nodeid.partition("::")[0], len(LONGEST)))


def pytest_collection_finish():
    """What has been imported and collected stays until the end."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers():
    """One more than cores: a test that waits for a process or a clock leaves its core to others."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One process runs a file's tests, and those of all files in one line of LONGEST."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 (not everybody has it)

    class Lines(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return LONGEST[PLACES[file]][0] if file in PLACES else file

    return Lines(config, log)


@pytest.fixture(scope="session")
def released():
    """What a scan of SOURCE says; each is scanned once, whichever tests look at it."""

    @cache
    def scanned(source):
        with open_source(source) as tree:
            return scan(tree)

    return scanned


@pytest.fixture(scope="session")
def mini_sglang():
    """A source of two models: oak is right, cedar's guard does not know DP."""
    return Path(__file__).parent / "samples" / "mini_sglang"


def truth_cells(**special):
    """A cell a row: reduces where no flag is set, except for the rows named by state."""
    cells = []
    for row in ROWS:
        state = next((state for state, rows in special.items() if row in rows), None)
        cells.append(state or ("skip" if "1" in row else "reduce"))
    return tuple(cells)


def grid_line(model, *, category, path="TP", **special):
    verdict = "unexpected diff" if "unexpected" in special else "identical"
    guard = TableSection(
        title="Guard",
        columns=("original guard", "read from"),
        rows=(("not (AF or RS)", f"models/{model}.py, lines 10-14"),),
    )
    return GridLine(
        label=f"{model}/{model.title()}Block.forward/{path}",
        cells=truth_cells(unreachable=("0011", "0111", "1011", "1111"), **special),
        facets={"model": model, "category": category, "verdict": verdict},
        detail=(guard,),
    )


@pytest.fixture(scope="session")
def sample_report():
    return Report(
        command="report",
        title="The helper against three guards",
        summary="3 sites, 1 unexpected diff",
        payload={"flags": list(FLAGS)},
        sections=(
            TableSection(
                title="Claims",
                columns=("claim", "verdict", "sites"),
                rows=(
                    ("nothing changed", "holds", "14"),
                    ("`FI` is not relevant", "fails", "3"),
                    ("latent fixes", "conditional", "2"),
                ),
                notes=("Counted under `signature`.",),
            ),
            GridSection(
                title="Truth tables",
                flags=FLAGS,
                rows=ROWS,
                lines=(
                    grid_line("amber", category="A"),
                    grid_line("birch", category="B", expected=("0001", "1001")),
                    grid_line("cedar", category="A", path="EP", unexpected=("0010",)),
                ),
                notes=("Reading `signature`.",),
            ),
            RanksSection(
                title="tp=4 ep=2: both sums skipped",
                groups={"EP": ((0, 2), (1, 3)), "MoE-TP": ((0, 1), (2, 3))},
                counts=((1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0), (0, 1, 0, 1)),
                notes=("Each rank lacks 2 of 4 partial sums.",),
            ),
        ),
        findings=(
            Finding(
                rule="lost-sum",
                kind="missing",
                subject="helper, two sites",
                message="both sums are skipped, the fused kernel reduces over EP only",
                fix="reduce over MoE-TP before fusing",
                row="1000",
                deployment={"tp": 4, "ep": 2},
                counts=((1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0), (0, 1, 0, 1)),
            ),
            Finding(
                rule="missing-skip",
                message="reduces although `reduce_scatterv` sums again: counted 4 times",
                fix="skip when should_use_dp_reduce_scatterv() is true",
                file="sglang/srt/models/cedar.py",
                line=213,
                cls="CedarBlock",
                method="forward",
                row="0010",
                deployment={"tp": 4, "ep": 4},
                counts=((4, 4, 4, 4),) * 4,
            ),
        ),
    )


HOSTILE = (
    "<script>document.title='injected'</script>",
    "\"'><img src=x onerror=\"document.title='injected'\">",
    "</style></script><h1>injected",
    "{{ 7 * 7 }}{% raw %}",
    "::error::injected%0A::error::twice",
    ",line=1,title=injected: yes",
    "line one\n::error::injected\r\nline three",
    "| a | b |\n| --- | --- |\n@everyone #1 [x](javascript:alert(1)) ``` ` <!-- -->",
    "\x1b[31mred\x1b[0m \x00 \x9b \u202e \u2028 \ufffe \ud800",
    "]]></testcase><injected/>",
    "[bold red]rich markup[/] [link=file:///]x[/link]",
    "x" * 5_000,
)


@pytest.fixture(scope="session")
def hostile_report():
    """Every string of every value is one that would break out of some output format."""
    words = HOSTILE
    table = TableSection(
        title=words[0],
        columns=(words[1], "verdict", "model"),
        rows=tuple((word, word, word) for word in words * 2),
        notes=words,
    )
    line = GridLine(
        label=words[1],
        cells=truth_cells(),
        facets={word: word for word in words},
        detail=(table,),
    )
    other = GridLine(label=words[0], cells=truth_cells(unexpected=("0010",)), facets={})
    return Report(
        command="scan",
        title=words[0],
        summary=words[5],
        payload={word: word for word in words if word.isascii()},
        sections=(
            table,
            GridSection(title=words[2], flags=FLAGS, rows=ROWS, lines=(line, other), notes=words),
            RanksSection(title=words[3], groups={words[0]: ((0,),)}, counts=((1, 2), (0, 1))),
        ),
        findings=tuple(
            Finding(
                rule=word,
                message=word,
                fix=word,
                subject=word,
                kind=word,
                file=word if index % 2 else None,
                line=index,
                cls=word,
                method=word,
                row=word,
                deployment={word: word},
            )
            for index, word in enumerate(words)
        ),
    )
