"""Attention that sums its own output, before a communicator that sums it."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

ATTENTION = """
class Attention:
    def __init__(self, config, reduce_results=True):
        self.attn = RadixAttention(config)
        self.index = RowParallelLinear(1, 1)
        self.o_proj = RowParallelLinear(1, 1, reduce_results=reduce_results)

    def forward(self, positions, hidden_states, batch):
        hidden_states = self.attn(hidden_states + self.index(positions))
        output, _ = self.o_proj(hidden_states)
        return output
"""
INHERITED = """
class Narrow(Attention):
    def __init__(self, config, reduce_results=True):
        super().__init__(config, reduce_results=reduce_results)
"""
BUILT = "self.self_attn = Attention(config, reduce_results=False)"


def places(
    scanned: Callable[..., ScanResult], sample: Any, built: str, attention: str = ATTENTION
) -> list[tuple[str, str, str | None, str | None]]:
    start = "        self.norm ="
    layer = sample.changed(sample.layer, start, f"        {built}\n{start}")
    found = scanned(attention, sample.block, layer).findings
    return [(one.rule, one.kind, one.cls, one.row) for one in found]


WRONG = [("producer-ignores-consumer", "double", "Attention", "0000")]


def test_projection_that_leaves_its_sum(scanned: Callable[..., ScanResult], sample: Any) -> None:
    assert places(scanned, sample, BUILT) == []


@pytest.mark.parametrize(
    "built",
    [
        "self.self_attn = Attention(config, reduce_results=True)",
        "self.self_attn = Attention(config, True)",
        "self.self_attn = Attention(config)",
    ],
)
def test_projection_that_sums(scanned: Callable[..., ScanResult], sample: Any, built: str) -> None:
    assert places(scanned, sample, built) == WRONG


def test_class_that_hands_it_on(scanned: Callable[..., ScanResult], sample: Any) -> None:
    both = ATTENTION + INHERITED
    assert places(scanned, sample, "self.mix = Narrow(config)", both) == WRONG
    assert places(scanned, sample, "self.mix = Narrow(config, False)", both) == []


@pytest.mark.parametrize(
    ("text", "other"),
    [
        # one rank has the whole of it
        ("RowParallelLinear(1, 1, reduce_results", "RowParallelLinear(1, 1, tp_size=1, r_r"),
        # nobody can tell
        ("reduce_results=reduce_results)", "**config.more)"),
        # not what it returns
        ("return output", "return hidden_states"),
    ],
)
def test_what_is_not_known_to_be_summed(
    scanned: Callable[..., ScanResult], sample: Any, text: str, other: str
) -> None:
    attention = sample.changed(ATTENTION, text, other)
    assert places(scanned, sample, "self.self_attn = Attention(config)", attention) == []


def test_layer_whose_communicator_prepares_no_mlp(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    start = "        self.norm ="
    built = f"        self.self_attn = Attention(config)  # .prepare_mlp(\n{start}"
    layer = sample.changed(sample.layer, start, built)
    layer = sample.changed(layer, "self.comm.prepare_mlp(", "self.comm.prepare_attn(")
    assert scanned(ATTENTION, sample.block, layer).findings == ()


@pytest.mark.parametrize(
    ("latent", "needs"),
    [
        ('getattr(config, "kind", "latent") == "latent"', 1),
        ('getattr(config, "kind", "latent") != "latent"', 0),
        ("config.kind == 1", 0),
    ],
)
def test_attention_that_only_another_checkpoint_than_the_usual_has(
    scanned: Callable[..., ScanResult], sample: Any, latent: str, needs: int
) -> None:
    start = "        self.norm ="
    built = f"""        self.latent = {latent}
        if self.latent:
            self.self_attn = Attention(config, reduce_results=False)
        else:
            self.self_attn = Attention(config)
"""
    layer = sample.changed(sample.layer, start, built + start)
    (finding,) = scanned(ATTENTION, sample.block, layer).findings
    assert len(finding.needs) == needs
    assert all("kind is not 'latent'" in need for need in finding.needs)


@pytest.mark.parametrize(
    ("reduces", "found"),
    [
        ("", WRONG),
        ("reduce_results=not is_dp_attention_enabled()", WRONG),
        ("reduce_results=False", []),
    ],
)
def test_mixer_that_writes_into_what_it_is_handed(
    scanned: Callable[..., ScanResult], sample: Any, reduces: str, found: list[Any]
) -> None:
    """A sum that is made but under attention data parallelism is made in a plain launch."""
    attention = f"""
class Attention:
    def __init__(self, config):
        self.attn = RadixAttention(config)
        self.o_proj = RowParallelLinear(1, 1, {reduces})

    def forward(self, hidden_states, output):
        output[: len(hidden_states)], _ = self.o_proj(self.attn(hidden_states))
"""
    assert places(scanned, sample, "self.mix = Attention(config)", attention) == found
