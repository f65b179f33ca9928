"""The one rank that a case is compared with: the same model, patch and arguments, on one rank."""

import pytest

from verify.checks.serve.run import without
from verify.engines.sglang.serving.tables import PARALLEL


def test_options_about_several_ranks_go_with_their_values():
    words = ["--tp", "2", "--dtype", "x", "--ep-size=2", "--enable-dp-attention", "--seed", "-1"]
    assert without(words, PARALLEL) == ("--dtype", "x", "--seed", "-1")
    assert without(["--json", "{}", "--moe-dense-tp-size", "1"], PARALLEL) == ("--json", "{}")
    assert without([], PARALLEL) == ()


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        # an argument that makes another model makes another one rank too
        (("--other-model",), "good-0 1 --other-model"),
        (("--other-model", "--moe-dense-tp-size", "1"), "good-0 1 --other-model"),
        (("--moe-dense-tp-size", "1"), "good-0 1 "),
    ],
)
def test_one_rank_has_the_servers_arguments_but_those_about_ranks(serve, words, alone):
    assert serve("--model", "good", "--layout", "tp2", "--", *words) == 0
    assert serve.report["cases"][0]["dlogprob"] == 0.0
    assert serve.ran()[0] == alone
    assert f"good-0 2 {' '.join(['--tp-size 2', *words])}" in serve.ran()


def test_a_patch_is_applied_to_one_rank_too_and_what_it_does_there_is_said(serve, tmp_path):
    patch = tmp_path / "patch.py"
    patch.write_text("0.5")
    words = ("--model", "good", "--layout", "tp2")
    assert serve(*words, "--patch", patch) == 0
    (case,) = serve.report["cases"]
    assert (case["outcome"], case["dlogprob"], case["patch_moves"]) == ("exact", 0.0, 0.5)
    patch.write_text("0.0")
    assert serve(*words, "--patch", patch) == 0
    assert serve.report["cases"][0]["patch_moves"] == 0.0
    assert serve(*words) == 0
    assert serve.report["cases"][0]["patch_moves"] is None


def test_one_rank_is_run_again_for_other_arguments_and_not_for_another_layout(serve):
    words = ("--model", "good", "--layout", "tp2", "--layout", "tp4")
    assert serve(*words, "--", "--other-model") == 0
    assert [line for line in serve.ran() if line.startswith("good-0 1")] == [
        "good-0 1 --other-model"
    ]
