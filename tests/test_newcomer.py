"""What a newcomer stumbled over, undone one at a time: does its test fail?

    python -m pytest -m slow tests/test_newcomer.py [-k M8]

Items are numbered as in the trial that named them: B is a blocker, M a major. Each line is what
made it right, done wrong again in a copy of the repository, and the test that then fails. (M45, the
names of the top-level packages, was decided otherwise: they stay.)
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parent.parent
TIME_LIMIT_S = 240
CLI = "tests/verify/cli/test_bad_inputs.py::test_a_bad_input_is_one_line_and_its_exit_code"
GATE = "tests/verify/checks/scan/test_gate.py"
FETCH = "tests/verify/source/test_fetch.py"
REPLAY = "tests/verify/checks/replay/test_command.py"
ENDING = "tests/verify/report/test_ending.py"
SHAPES = "tests/verify/report/render/test_shapes.py"
CAUSES = "tests/verify/report/render/test_causes_text.py"
WORDS = "tests/verify/report/render/test_glossary.py"
PROGRESS = "tests/verify/report/test_progress.py"
PAGE = "tests/browser/test_html.py"
ITEMS = ("B1", "B2", "B3", *(f"M{n}" for n in (*range(4, 11), *range(20, 25), 30, 31, 39, 40)))


@dataclass(frozen=True, kw_only=True)
class Undone:
    """`old` of `file` done wrong as `new`; `test` fails then (`-k` with `chosen`)."""

    item: str
    what: str
    file: str
    old: str
    new: str
    test: str
    chosen: str = ""

    def __str__(self) -> str:
        return f"{self.item}: {self.test.rpartition('::')[2]} {self.chosen}".strip()


def _of(item: str, what: str, *changes: tuple[str, ...]) -> Iterator[Undone]:
    """One item's ways to be wrong: (file, old, new, test[, chosen])."""
    for file, old, new, test, *chosen in changes:
        yield Undone(
            item=item, what=what, file=file, old=old, new=new, test=test, chosen="".join(chosen)
        )


UNDONE = (
    *_of(
        "B1",
        "a figure of rounding, this processor's, is compared word for word",
        (
            "tests/test_readme.py",
            'return re.sub(r"(?<=\\s)0\\.\\d\\d(?=\\s+\\d+\\s*$)", "0.##", text, '
            "flags=re.MULTILINE)",
            "return text",
            "tests/test_readme.py::"
            "test_a_figure_of_rounding_is_not_compared_and_every_other_one_is",
        ),
    ),
    *_of(
        "B2",
        "what could not be read is a pass",
        (
            "verify/checks/scan/command.py",
            "*map(not_analysed, (*result.unread, *result.renamed)),",
            "*map(not_analysed, result.renamed),",
            CLI,
            "merge_marker",
        ),
        (
            "verify/report/render/sarif.py",
            '"executionSuccessful": not missed',
            '"executionSuccessful": True',
            f"{GATE}::test_sarif_says_that_the_run_was_not_whole",
        ),
        (
            "verify/report/render/junit.py",
            '"error" if finding.rule == NOT_ANALYSED else "failure"',
            '"failure"',
            f"{GATE}::test_junit_has_an_error",
        ),
        (
            "verify/report/choices.py",
            "one.rule in ALWAYS or ",
            "",
            "tests/verify/report/test_choices.py::"
            "test_what_was_not_looked_at_fails_under_every_choice",
        ),
    ),
    *_of(
        "B3",
        "nothing to look at is a pass",
        (
            "verify/checks/scan/command.py",
            "if not (result.findings or result.renamed or (result.layers and reductions)):",
            "if False:",
            f"{GATE}::test_nothing_to_look_at_cannot_run",
            "scan",
        ),
        (
            "verify/checks/scan/command.py",
            "if not (result.findings or result.renamed or (result.layers and reductions)):",
            "if False:",
            CLI,
            "empty_srt or wheel_of_nothing",
        ),
        (
            "verify/checks/pull_request/release.py",
            "    if not there and not index.unread:",
            "    if False:",
            CLI,
            "report and source",
        ),
    ),
    *_of(
        "M4",
        "a replay that ran nothing is a pass",
        (
            "verify/checks/replay/overview.py",
            "if why.total() == len(results):",
            "if False:",
            f"{REPLAY}::test_no_case_that_runs_is_no_report",
        ),
    ),
    *_of(
        "M5",
        "==0.5.* answers from whatever is cached",
        (
            "verify/source/fetch.py",
            ' and not part.version.endswith(".*")',
            "",
            f"{FETCH}::test_a_star_is_resolved_and_not_looked_up",
        ),
    ),
    *_of(
        "M6",
        "a failed download poisons the cache, and what lies there is believed",
        (
            "verify/source/fetch.py",
            "if not complaint:",
            'if not complaint or [*folder.glob("*.whl")]:',
            f"{FETCH}::test_what_a_failed_pip_leaves_enters_no_cache",
        ),
        (
            "verify/source/cache.py",
            "if is_whole(wheel)), None)",
            "), None)",
            f"{FETCH}::test_a_file_in_the_cache_without_its_record_is_fetched_again",
        ),
        (
            "verify/source/cache.py",
            " and asdict(_measured(wheel)) == record",
            "",
            f"{FETCH}::test_a_file_that_changed_since_is_fetched_again",
        ),
    ),
    *_of(
        "M7",
        "mixed is drawn as doubled",
        (
            "verify/report/render/counts_text.py",
            "said += [OTHERS] if is_mixed(finding) else []",
            "pass",
            f"{CAUSES}::test_mixed_says_that_other_tokens_are_in_it",
        ),
        (
            "verify/report/render/counts_text.py",
            'said = [f"{lacking} of {len(flat)} missing ({LACKING})"] if lacking else []',
            "said = []",
            f"{CAUSES}::test_a_drawing_says_what_the_words_say",
        ),
        (
            "verify/report/render/counts_text.py",
            "if finding.counts_of else",
            "if False else",
            f"{CAUSES}::test_counts_of_one_token_say_so",
        ),
        (
            "verify/report/render/words.py",
            'return "mixed" in (finding.kind, finding.rule.rpartition("-")[2])',
            "return False",
            f"{SHAPES}::test_a_mixed_finding_s_drawing_says_that_other_tokens_are_in_it",
        ),
    ),
    *_of(
        "M8",
        "annotations are the first and not the worst, and the summary lists no more",
        (
            "verify/report/render/github.py",
            "findings = worst_first(report)",
            "findings = list(report.findings)",
            f"{SHAPES}::test_annotations_are_worst_first_and_ten",
        ),
        (
            "verify/report/render/digest.py",
            "for one in exposure.findings]\n        shown",
            "for one in exposure.findings[:10]]\n        shown",
            f"{SHAPES}::test_what_annotations_leave_out_is_in_the_job_summary",
        ),
    ),
    *_of(
        "M9",
        "killed runs leave processes and folders",
        (
            "verify/report/ending.py",
            '("SIGTERM", "SIGHUP") if hasattr(signal, name)',
            '("SIGTERM", "SIGHUP") if False',
            f"{ENDING}::test_replay_ends_with_its_children_and_folders",
        ),
        (
            "verify/report/ending.py",
            "ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)",
            "ctypes.CDLL(None)",
            f"{ENDING}::test_a_worker_that_is_told_nothing_more_ends_with_prove",
        ),
        (
            "verify/report/ending.py",
            'for name in ("SIGTERM", "SIGHUP")',
            'for name in ("SIGTERM",)',
            f"{ENDING}::test_a_signal_ends_workers_that_would_work_for_ever",
        ),
        (
            "verify/report/ending.py",
            "        child.kill()",
            "        pass",
            f"{ENDING}::test_a_signal_ends_workers_that_would_work_for_ever",
        ),
        (
            "verify/report/ending.py",
            "    if _STARTING:",
            "    if False:",
            f"{ENDING}::test_a_signal_while_a_worker_starts_waits_for_it",
        ),
        (
            "verify/checks/prove/lattice.py",
            "            with starting_children():",
            "            if True:",
            f"{ENDING}::test_a_signal_while_a_worker_starts_waits_for_it",
        ),
        (
            "verify/checks/replay/child.py",
            "    end_with_parent()",
            "    pass",
            f"{ENDING}::test_a_child_that_is_told_nothing_more_ends_with_a_replay",
        ),
        (
            "verify/checks/prove/lattice.py",
            "    end_with_parent()",
            "    pass",
            f"{ENDING}::test_a_worker_that_is_told_nothing_more_ends_with_prove",
        ),
    ),
    *_of(
        "M10",
        "a mistyped path becomes a download",
        (
            "verify/source/fetch.py",
            "if canonicalize_name(requirement.name) not in distributions:",
            "if False:",
            CLI,
            "numpy or vllm or typo or nowhere",
        ),
        (
            "verify/source/fetch.py",
            "if canonicalize_name(requirement.name) not in distributions:",
            "if False:",
            f"{FETCH}::test_a_name_that_is_no_engine_s_is_never_asked_for",
        ),
    ),
    *_of(
        "M20",
        "80 columns do not hold",
        (
            "verify/report/render/page.py",
            "if told.isdecimal() and int(told) > 0:",
            "if False:",
            "tests/verify/report/render/test_table.py::test_columns_count_where_output_is_piped",
        ),
        (
            "verify/report/render/cause_text.py",
            'line.truncate(page.width, overflow="ellipsis")',
            "pass",
            f"{CAUSES}::test_every_line_fits",
        ),
        (
            "verify/report/render/cause_text.py",
            "    while len(word) > room:",
            "    while False:",
            f"{CAUSES}::test_a_name_longer_than_the_page_is_broken_after_its_parts",
        ),
        (
            "verify/report/render/page.py",
            "return max(width, NARROWEST)",
            "return max(width, 100)",
            "tests/verify/cli/test_eighty_columns.py::test_columns_are_held",
            "rules or scan",
        ),
    ),
    *_of(
        "M21",
        "far too long by default",
        (
            "verify/report/render/table.py",
            "MOST_LINES = 292",
            "MOST_LINES = 10_000",
            f"{CAUSES}::test_many_causes_are_300_lines_with_each_one_named",
        ),
        (
            "verify/report/render/cause_text.py",
            "    yield from _next(report, causes[0], page)\n",
            "",
            f"{CAUSES}::test_the_first_screen_of_six_causes_is_24_lines",
        ),
    ),
    *_of(
        "M22",
        "80 findings of four causes are 80",
        (
            "verify/report/causes.py",
            "if finding.takes:",
            "if False:",
            "tests/verify/report/test_causes.py::"
            "test_one_setting_that_many_layers_do_not_know_is_one_cause",
        ),
    ),
    *_of(
        "M23",
        "two numbers are called finding; 1 findings",
        (
            "verify/report/render/words.py",
            "{noun}{'' if number == 1 else 's'}",
            "{noun}s",
            f"{CAUSES}::test_one_is_singular",
        ),
        (
            "verify/checks/scan/command.py",
            'names = {"finding": "guarded wrongly"}',
            "names: dict[str, str] = {}",
            f"{GATE}::test_one_number_is_called_finding",
        ),
    ),
    *_of(
        "M24",
        "words are not explained where they stand",
        (
            "verify/report/render/glossary.py",
            "known = WORDS.get(report.command, {})",
            "known: Mapping[str, str] = {}",
            f"{WORDS}::test_words_are_explained_below_what_uses_them",
        ),
        (
            "verify/report/render/html.py",
            '<abbr title="{}">{}</abbr>\').format(words[piece], piece)',
            "{}').format(piece)",
            f"{WORDS}::test_a_pointer_is_told_what_a_word_means",
        ),
    ),
    *_of(
        "M30",
        "a whole release is replayed for minutes without a word, and nothing is kept",
        (
            "verify/report/progress.py",
            "while not ended.wait(HEARTBEAT):",
            "while not ended.wait(1e6):",
            f"{PROGRESS}::test_a_log_gets_a_line_now_and_then_with_what_is_left",
        ),
        (
            "verify/checks/replay/overview.py",
            "if not results:\n            raise\n",
            "raise\n",
            f"{ENDING}::test_a_replay_that_is_ended_says_what_it_has_done",
        ),
    ),
    *_of(
        "M31",
        "no --version",
        (
            "verify/cli/command_line.py",
            '"--version", action="version", version=f"{NAME} {about.version()}"',
            '"--version"',
            "tests/verify/cli/test_bad_inputs.py::test_the_version_is_said",
        ),
    ),
    *_of(
        "M39",
        "HTML is as many equal cards as there are findings, without a list of contents",
        (
            "verify/report/render/html_parts.j2",
            '<details class="more places">',
            '<details class="more places" open>',
            f"{PAGE}::test_causes_come_first_and_their_places_are_folded_away",
        ),
        (
            "verify/report/render/html.j2",
            '<a href="#{{ cause.id }}">{{ cause.title }}</a>',
            "{{ cause.title }}",
            f"{PAGE}::test_the_totals_lead_to_the_causes",
        ),
    ),
    *_of(
        "M40",
        "no code and no link",
        (
            "verify/report/render/html_parts.j2",
            "{{ code_views(finding) }}",
            "",
            f"{PAGE}::test_causes_come_first_and_their_places_are_folded_away",
        ),
        (
            "verify/report/render/words.py",
            'return f"{report.web}{quote(file, errors=\'replace\')}{at}" if report.web else ""',
            'return ""',
            f"{PAGE}::test_causes_come_first_and_their_places_are_folded_away",
        ),
        (
            "verify/report/render/cause_text.py",
            "    yield from code_lines(report, first, page, indent=INDENT)\n",
            "",
            f"{CAUSES}::test_a_block_says_what_who_and_what_to_do_with_the_source",
        ),
        (
            "verify/report/render/cause_text.py",
            "yield from counts_lines(first, page, indent=INDENT)",
            "pass",
            f"{CAUSES}::test_counts_are_drawn_where_there_are_some",
        ),
    ),
)


def fails(undone: Undone) -> bool:
    """Whether its test fails in a copy of the repository where this is done wrong.

    Raises `AssertionError` where the test neither fails nor passes.
    """
    with _copy() as folder:
        file = folder / undone.file
        text = file.read_text(encoding="utf-8")
        assert text.count(undone.old) == 1, f"{undone.file}: {undone.old}"
        file.write_text(text.replace(undone.old, undone.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-x", "-p", "no:cacheprovider"]
        command += ["-m", "not bench"]  # slow ones too
        command += [undone.test, *(("-k", undone.chosen) if undone.chosen else ())]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIME_LIMIT_S,
        )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert " passed" in done.stdout or " failed" in done.stdout, done.stdout
    return done.returncode == 1


@contextmanager
def _copy() -> Iterator[Path]:
    """The repository without its history and what tools leave."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "docs", "build", "dist")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "copy")
        shutil.copytree(ROOT, folder, ignore=left_out, symlinks=True)
        yield folder


def test_each_item_has_a_test():
    assert tuple(dict.fromkeys(undone.item for undone in UNDONE)) == ITEMS


@pytest.mark.parametrize("undone", UNDONE, ids=str)
def test_what_is_undone_is_there_and_so_is_its_test(undone):
    assert (ROOT / undone.file).read_text(encoding="utf-8").count(undone.old) == 1
    file, _, name = undone.test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.slow
@pytest.mark.parametrize("undone", UNDONE, ids=str)
def test_undone_it_fails(undone):
    assert fails(undone)
