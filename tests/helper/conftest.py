"""Legal configurations of up to eight ranks, drawn by `st.from_type(MoeConfig)`."""

from hypothesis import strategies as st

from helper import MoeConfig
from helper.config import A2A_BACKENDS, FULL_EP_BACKENDS, RUNNER_BACKENDS, WHOLE_OR_NO_EP_RUNNERS


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


@st.composite
def legal_configs(draw: st.DrawFn) -> MoeConfig:
    """Built from the rules, not by trial: what is drawn here must be accepted."""
    tp_size = draw(st.sampled_from((1, 2, 4, 6, 8)))
    backend = draw(st.sampled_from(A2A_BACKENDS))
    runner = draw(st.sampled_from(RUNNER_BACKENDS))
    attn_dp_size = draw(st.sampled_from(_divisors(tp_size)))
    attn_cp_size = draw(st.sampled_from(_divisors(tp_size // attn_dp_size)))
    ep_sizes = _divisors(tp_size)
    if backend in FULL_EP_BACKENDS:
        ep_sizes = [tp_size]
    elif runner in WHOLE_OR_NO_EP_RUNNERS:
        ep_sizes = [1, tp_size]
    ep_size = draw(st.sampled_from(ep_sizes))
    moe_dp_sizes = [1]
    if ep_size == 1 or ep_size * attn_cp_size == tp_size:
        moe_dp_sizes.append(attn_cp_size)
    return MoeConfig(
        tp_size=tp_size,
        ep_size=ep_size,
        moe_dp_size=draw(st.sampled_from(moe_dp_sizes)),
        attn_dp_size=attn_dp_size,
        attn_cp_size=attn_cp_size,
        enable_dp_attention=attn_dp_size > 1,
        moe_a2a_backend=backend,
        moe_runner_backend=runner,
        quantization=draw(st.sampled_from((None, "fp8", "modelopt_fp4"))),
        disable_flashinfer_cutlass_moe_fp4_allgather=draw(st.booleans()),
    )


st.register_type_strategy(MoeConfig, legal_configs())
