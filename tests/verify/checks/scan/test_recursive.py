"""A method that calls itself on chunks of its rows is judged like one that does not."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

Scan = Callable[..., ScanResult]

HEAD = "        out = self.experts(x)\n"
BY_LENGTH = """        if x.shape[0] > LIMIT:
            return torch.cat([self.forward(part, batch, should_allreduce_fusion, use_reduce_scatter)
                              for part in x.split(LIMIT)])
"""
IN_A_LOOP = """        if x.shape[0] > LIMIT:
            out = torch.empty_like(x)
            for low, high in plan(x):
                out[low:high] = self.forward(
                    x[low:high], batch, should_allreduce_fusion, use_reduce_scatter
                )
            return out
"""
BY_A_PLAN = """        chunks = plan(x)
        if chunks is not None and len(chunks) > 1 and not self.whole:
            out = None
            for low, high in chunks:
                part = self.forward(x[low:high], batch, should_allreduce_fusion, use_reduce_scatter)
                if out is None:
                    out = torch.empty_like(part)
                out[low:high] = part
            return out
"""
THROUGH_ANOTHER = """        if x.shape[0] > LIMIT:
            return self.in_parts(x, batch, should_allreduce_fusion, use_reduce_scatter)
"""
ANOTHER = """
    def in_parts(self, x, batch, should_allreduce_fusion, use_reduce_scatter):
        parts = [self.forward(x[:LIMIT], batch, should_allreduce_fusion, use_reduce_scatter),
                 self.forward(x[LIMIT:], batch, should_allreduce_fusion, use_reduce_scatter)]
        return torch.cat(parts)
"""
SHAPES = [
    pytest.param(BY_LENGTH, "", id="one test"),
    pytest.param(IN_A_LOOP, "", id="written into a tensor"),
    pytest.param(BY_A_PLAN, "", id="several tests"),
    pytest.param(THROUGH_ANOTHER, ANOTHER, id="through another method"),
]


def chunked(sample: Any, chunks: str, more: str) -> str:
    return str(sample.changed(sample.block, HEAD, chunks + HEAD)) + more


@pytest.mark.parametrize(("chunks", "more"), SHAPES)
def test_a_sound_block_in_chunks_is_sound(
    scanned: Scan, sample: Any, chunks: str, more: str
) -> None:
    result = scanned(chunked(sample, chunks, more), sample.layer)
    assert not result.findings
    assert not result.unread
    assert [site.verdict for site in result.sites] == ["covered"]


@pytest.mark.parametrize(("chunks", "more"), SHAPES)
def test_the_fault_of_a_block_in_chunks_is_the_fault_of_the_block(
    scanned: Scan, sample: Any, chunks: str, more: str
) -> None:
    def broken(block: str) -> list[tuple[str, str | None]]:
        reads = "            use_reduce_scatter=use_reduce_scatter,\n"
        result = scanned(sample.changed(block, reads, ""), sample.layer)
        assert not result.unread
        return sorted((finding.rule, finding.row) for finding in result.findings)

    plain = broken(sample.block)
    assert plain
    assert broken(chunked(sample, chunks, more)) == plain


@pytest.mark.parametrize(("chunks", "more"), SHAPES)
def test_a_sum_around_the_chunks_is_a_second_one(
    scanned: Scan, sample: Any, chunks: str, more: str
) -> None:
    def summed(text: str) -> str:
        text = text.replace("            return out\n", "            return all_of(out)\n")
        text = text.replace("return torch.cat(parts)", "return all_of(torch.cat(parts))")
        return text.replace("return torch.cat([", "return all_of([").replace(
            "all_of(", "tensor_model_parallel_all_reduce("
        )

    result = scanned(chunked(sample, summed(chunks), summed(more)), sample.layer)
    assert result.findings or result.unread


def test_what_comes_back_always_is_not_analysed(scanned: Scan, sample: Any) -> None:
    endless = "        return self.forward(x)\n"
    result = scanned(chunked(sample, endless, ""), sample.layer)
    assert any("nested deeper" in line for line in result.unread)


def test_the_case_of_a_flag_is_followed_as_it_is(scanned: Scan, sample: Any) -> None:
    """A flag is the same inside: what a call does under it must not be taken for settled."""
    once = """        if use_reduce_scatter:
            return self.forward(x, batch, should_allreduce_fusion, False)
"""
    result = scanned(chunked(sample, once, ""), sample.layer)
    assert [finding.kind for finding in result.findings] == ["double"]
    assert not result.unread
