"""What a plan costs beside the predicate, in one run. It prints and never fails on speed."""

from collections.abc import Callable
from timeit import repeat

import pytest

from helper import Layer, MoeConfig, plan_layer, should_skip_post_experts_all_reduce, use_config

pytestmark = pytest.mark.bench

CONFIG = MoeConfig(tp_size=4, ep_size=2)
LAYERS = [Layer(next=follows) for follows in ("norm", "fused norm", "stage end", "model end")]


def seconds(work: Callable[[], object], *, number: int) -> float:
    """Of one call: the fastest of seven rounds of `number`."""
    return min(repeat(work, number=number, repeat=7)) / number


def test_asking_and_building_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    layer = LAYERS[1]

    def predicate() -> bool:
        return should_skip_post_experts_all_reduce(
            is_tp_path=True, use_reduce_scatter=False, should_allreduce_fusion=True
        )

    with use_config(CONFIG):
        asked = seconds(predicate, number=20_000)
        planned = seconds(lambda: plan_layer(CONFIG, layer), number=20_000)
        with_layer = seconds(lambda: plan_layer(CONFIG, Layer(next="fused norm")), number=20_000)
        built = max(
            seconds(lambda each=each: plan_layer.__wrapped__(CONFIG, each), number=2_000)
            for each in LAYERS
        )
    with capsys.disabled():
        print(
            f"\nbench: a plan is asked for in {planned / asked:.2f}x of the predicate's time "
            f"({asked * 1e6:.1f} us), {with_layer / asked:.2f}x where its Layer is made for it; "
            f"reach 1.5x; built in {built / asked:.1f}x; reach 50x",
            end="",
        )
