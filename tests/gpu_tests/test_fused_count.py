"""How many cases' sums the fused kernel made is counted where it is called, and reported."""

from gpu_tests.judge import RankVerdict
from gpu_tests.outcome import Outcome
from gpu_tests.plan import cases
from gpu_tests.report import make_report


def notes(fused):
    todo = list(cases(world_size=2, dtypes=("float32",), models=("qwen3_moe",)))[:3]
    outcomes = [
        Outcome.of(case, [RankVerdict(kind="exact", counts=(1, 1), fused_norm=number in fused)] * 2)
        for number, case in enumerate(todo)
    ]
    report = make_report(
        outcomes, causes=(), world_size=2, backend="nccl", kernels="kernels", ran_on={}
    )
    marked = [entry["fused_norm"] for entry in report.payload["cases"]]
    assert marked == [number in fused for number in range(len(outcomes))]
    return report.sections[0].notes


def test_the_report_says_how_many():
    assert "The fused kernel made the sum of 2 cases." in notes({0, 2})
    assert not any("fused kernel" in note for note in notes(set()))
