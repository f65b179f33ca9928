"""Stand-ins against a plain torch reference; mocks that raise when they are reached."""

import importlib
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")
from verify.engines.sglang.serving.inside import experts, standins, stubs  # noqa: E402

HELD = 2  # experts of this rank


class TopK(NamedTuple):
    topk_weights: torch.Tensor
    topk_ids: torch.Tensor
    router_logits: torch.Tensor


class Config:
    apply_router_weight_on_input = False


class Layer:
    w13_weight = torch.tensor([[2.0], [3.0]])


def native(layer, x, topk, config):
    """What the engine's does: every id must be one that is held."""
    weights, ids, _ = topk
    assert bool(((ids >= 0) & (ids < HELD)).all())
    return (weights * layer.w13_weight[ids, 0]).sum(1, keepdim=True) * x


@pytest.mark.parametrize("foreign", [-1, HELD, 7])
def test_an_expert_of_another_rank_adds_zero(foreign):
    x = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    topk = TopK(
        torch.tensor([[0.25, 0.75], [0.5, 0.5]]),
        torch.tensor([[0, foreign], [foreign, 1]]),
        torch.zeros(2),
    )
    wanted = torch.tensor([[0.25 * 2.0], [0.5 * 3.0]]) * x
    assert torch.equal(standins.native_moe(native)(Layer, x, topk, Config), wanted)
    with pytest.raises(AssertionError):
        native(Layer, x, topk, Config)


class Autotuner:
    """As Triton 3.9's: a key must be an argument."""

    def __init__(self, fn, arg_names, configs, key, warmup=None):
        unknown = [name for name in key if name not in arg_names]
        if unknown:
            raise ValueError(f"key contains names that are not kernel arguments: {unknown}")
        self.keys, self.kept = key, (fn, arg_names, configs, warmup)


class Interpreter:
    """As Triton's: a kernel's names are taken back when its launch ends, a function's never."""

    def __init__(self):
        self.ready, self.made = set(), []
        interpreter = self

        class GridExecutor:
            def __init__(self, kernel):
                self.kernel = kernel

            def __call__(self, *calls):
                scope = interpreter._patch_lang(self.kernel)
                for function in calls:
                    interpreter._patch_lang(function)
                    assert {self.kernel, function} <= interpreter.ready
                scope()

        self.GridExecutor = GridExecutor

    def _patch_lang(self, function):
        self.made.append(function)
        self.ready.add(function)
        return self.ready.clear


@pytest.mark.parametrize("often", [1, 3])
def test_a_function_of_a_kernel_is_made_ready_once_a_launch(often):
    interpreter = Interpreter()
    standins.ready_once(interpreter)
    for kernel in ("k", "l", "k"):
        interpreter.GridExecutor(kernel)(*["f"] * often, *["g"] * often, "f")
    assert interpreter.made == ["k", "f", "g", "l", "f", "g", "k", "f", "g"]


KERNEL = """
import sys, torch, triton, triton.language as tl
from triton.runtime import interpreter

sys.path.insert(0, sys.argv[1])
from verify.engines.sglang.serving.inside import standins

@triton.jit
def kernel(x, out, size: tl.constexpr):
    row = tl.load(x + tl.program_id(0) * size + tl.arange(0, size))
    tl.store(out + tl.program_id(0), tl.sigmoid(tl.sum(row * row)) * tl.max(row) + tl.cdiv(size, 3))

def run():
    out = torch.zeros(5)
    kernel[(5,)](torch.arange(40.0).sin(), out, 8)
    return out

before, made = run(), []
make = interpreter._patch_lang
interpreter._patch_lang = lambda function: made.append(function) or make(function)
run()
often = len(made)
standins.ready_once(interpreter)
assert torch.equal(before, run()) and torch.equal(before, run())
print(often, len(made) - often)
"""


@pytest.mark.engine
def test_a_kernel_says_the_same_with_its_functions_made_ready_once(tmp_path):
    python = os.environ.get("SERVE_PYTHON")
    if python is None:
        pytest.skip("SERVE_PYTHON is not set")
    script = tmp_path / "kernel.py"
    script.write_text(KERNEL)
    root = Path(standins.__file__).parents[5]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [python, str(script), str(root)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    often, twice = map(int, said.stdout.split())
    assert twice < often


def test_a_tuning_key_that_is_no_argument_is_left_out(monkeypatch):
    module = types.SimpleNamespace(Autotuner=Autotuner)
    monkeypatch.setattr(Autotuner, "__init__", Autotuner.__init__)
    monkeypatch.setitem(sys.modules, "triton.runtime.autotuner", module)
    with pytest.raises(ValueError, match="block_size"):
        Autotuner("fn", ["x", "n"], [1], ["n", "block_size"])
    standins.tuning_keys()
    made = Autotuner("fn", ["x", "n"], [1], key=["n", "block_size"], warmup=3)
    assert (made.keys, made.kept) == (["n"], ("fn", ["x", "n"], [1], 3))


@pytest.mark.parametrize(("rank", "wanted"), [(0, [[0, 1], [-1, -1]]), (1, [[-1, -1], [1, -1]])])
def test_a_runner_that_keeps_the_model_s_numbers_of_experts(rank, wanted):
    class Dispatcher:
        skip_local_expert_mapping = True

    class Keeps(Layer):
        dispatcher = Dispatcher
        moe_ep_rank = rank

    assert standins._held(Keeps, torch.tensor([[0, 1], [3, -1]])).tolist() == wanted
    assert standins._held(Layer, torch.tensor([[0, 1], [3, -1]])).tolist() == [[0, 1], [-1, -1]]


def test_an_expert_twice_in_a_row_adds_twice():
    def once(layer, x, topk, config):
        assert topk.topk_ids.shape[1] == 1
        return native(layer, x, topk, config)

    x = torch.tensor([[1.0, 2.0]])
    topk = TopK(torch.tensor([[0.25, 0.75]]), torch.tensor([[1, 1]]), torch.zeros(1))
    assert torch.equal(standins.native_moe(once)(Layer, x, topk, Config), 3.0 * x)


def test_an_empty_batch_is_empty():
    x = torch.zeros(0, 2)
    assert standins.native_moe(native)(Layer, x, None, None).shape == (0, 2)


TOKENS, EXPERTS, HIDDEN, INNER = 5, 4, 6, 3
ACTIVATIONS = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "relu2": lambda x: torch.where(x > 0, x * x, 0),
}


def some(*, gated=True, biased=False):
    """x, w13, w2, weights, ids of a mixture; -1 and 9 are experts of other ranks."""
    draw = torch.Generator().manual_seed(3)
    made = [
        torch.randn(shape, generator=draw)
        for shape in (
            (TOKENS, HIDDEN),
            (EXPERTS, (2 if gated else 1) * INNER, HIDDEN),
            (EXPERTS, HIDDEN, INNER),
            (TOKENS, 2),
            (EXPERTS, (2 if gated else 1) * INNER),
            (EXPERTS, HIDDEN),
        )
    ]
    ids = torch.tensor([[0, 1], [3, -1], [2, 9], [-1, 9], [1, 1]])
    return (*made[:4], ids), (tuple(made[4:]) if biased else (None, None))


def by_hand(x, w13, w2, weights, ids, *, activation, gated, weight_on_input, biases):
    """One token and one expert at a time, each product an einsum."""
    total = torch.zeros_like(x)
    for token in range(TOKENS):
        for weight, expert in zip(weights[token], ids[token].tolist(), strict=True):
            if not 0 <= expert < EXPERTS:
                continue
            row = x[token] * (weight if weight_on_input else 1)
            inner = torch.einsum("h,ih->i", row, w13[expert])
            inner = inner + (0 if biases[0] is None else biases[0][expert])
            act = ACTIVATIONS[activation]
            inner = act(inner[:INNER]) * inner[INNER:] if gated else act(inner)
            out = torch.einsum("i,hi->h", inner, w2[expert])
            out = out + (0 if biases[1] is None else biases[1][expert])
            total[token] += out * (1 if weight_on_input else weight)
    return total


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("weight_on_input", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_a_mixture_is_what_one_token_and_expert_at_a_time_give(
    activation, gated, weight_on_input, biased
):
    tensors, biases = some(gated=gated, biased=biased)
    how = {"activation": activation, "gated": gated, "weight_on_input": weight_on_input}
    found = experts.mixture(*tensors, **how, biases=biases)
    torch.testing.assert_close(found, by_hand(*tensors, **how, biases=biases))
    other = (tensors[0], tensors[1], tensors[2], tensors[3], (tensors[4] + 1) % EXPERTS)
    assert not torch.allclose(found, experts.mixture(*other, **how, biases=biases))


def test_a_clamped_gate_beside_its_up():
    tensors, _ = some()
    x, w13, w2, weights, ids = tensors
    found = experts.mixture(
        *tensors, activation="silu", gated=True, weight_on_input=False, swiglu=(1.7, 0.5)
    )
    token, expert = 1, 3  # its other expert is another rank's
    gate, up = w13[expert][:INNER] @ x[token], w13[expert][INNER:] @ x[token]
    gate, up = torch.minimum(gate, torch.tensor(0.5)), torch.clamp(up, -0.5, 0.5)
    inner = gate / (1 + torch.exp(-1.7 * gate)) * (up + 1)
    torch.testing.assert_close(found[token], weights[token, 0] * (w2[expert] @ inner))
    assert ids[token].tolist() == [expert, -1]


def test_an_activation_that_is_not_known_is_named():
    tensors, _ = some()
    with pytest.raises(NotImplementedError, match="the activation swish of a mixture"):
        experts.mixture(*tensors, activation="swish", gated=True, weight_on_input=False)


def kernel(  # noqa: PLR0917 (as the engine has it)
    hidden_states,
    w1,
    w2,
    topk_weights,
    topk_ids,
    inplace=False,
    activation="silu",
    use_fp8_w8a8=False,
    routed_scaling_factor=None,
):
    """The head of the engine's function."""


def test_the_fused_experts_in_and_out_of_place():
    tensors, _ = some()
    plain = {"activation": "silu", "gated": True, "weight_on_input": False, "biases": (None,) * 2}
    wanted = 2 * by_hand(*tensors, **plain)
    fused = experts.fused_experts(kernel)
    torch.testing.assert_close(fused(*tensors, routed_scaling_factor=2.0), wanted)
    assert not torch.allclose(tensors[0], wanted)
    fused(*tensors, inplace=True, routed_scaling_factor=2.0)
    torch.testing.assert_close(tensors[0], wanted)


def test_the_fused_experts_name_what_they_do_not_do():
    tensors, _ = some()
    with pytest.raises(NotImplementedError, match="with use_fp8_w8a8 has no stand-in"):
        experts.fused_experts(kernel)(*tensors, use_fp8_w8a8=True)


@pytest.mark.parametrize(
    ("scaling", "wanted"),
    [(None, "other"), ({"rope_type": "llama3"}, "other"), ({"rope_type": "deepseek_yarn"}, "cpu")],
)
def test_a_rotary_embedding_that_the_cpu_s_does_not_know_is_the_other_s(scaling, wanted):
    def cpu(head_size, rope_scaling=None, device=None):
        return "cpu", head_size, device

    def other(head_size, rope_scaling=None):
        return "other", head_size, None

    found = standins.rotary(cpu, other)(64, scaling, device="cpu")
    assert found == (wanted, 64, "cpu" if wanted == "cpu" else None)


def test_a_model_takes_the_engine_s_own_kernel_where_the_release_has_it(monkeypatch):
    owner, user = types.ModuleType("owner"), types.ModuleType("user")
    owner.norm, user.norm, user.other = "its own", "mock", "mock"
    monkeypatch.setitem(sys.modules, "owner", owner)
    monkeypatch.setitem(sys.modules, "user", user)
    standins.own_kernels(
        {"user": {"norm": "owner", "other": "not.there"}, "absent": {"a": "owner"}}
    )
    assert (user.norm, user.other) == ("its own", "mock")


def test_a_tensor_is_made_in_plain_memory():
    made = standins.plain(torch.full)((2,), 3.0, device="cuda", pin_memory=True)
    assert (made.tolist(), made.device.type) == ([3.0, 3.0], "cpu")


def test_operators_that_torch_lacks_are_loud(monkeypatch):
    namespace = type(torch.ops.sgl_kernel)
    monkeypatch.setattr(namespace, "__getattr__", namespace.__getattr__)
    stubs.install_operators(namespace)
    with pytest.raises(stubs.StubReachedError, match=r"sgl_kernel\.some_router_cpu"):
        torch.ops.sgl_kernel.some_router_cpu(1, 2)
    with pytest.raises(AttributeError):
        torch.ops.sgl_kernel.some_router  # noqa: B018
    with pytest.raises(AttributeError):
        torch.ops.elsewhere.some_router_cpu  # noqa: B018


def test_a_mock_is_importable_and_loud(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(stubs, "install_operators", lambda namespace: None)
    stubs.install()
    try:
        module = importlib.import_module("deep_ep.utils")
        assert module.Buffer.KIND == "deep_ep.utils.Buffer.KIND"
        with pytest.raises(stubs.StubReachedError, match=r"deep_ep\.utils\.combine"):
            module.combine(1, 2)
    finally:
        for name in [name for name in sys.modules if name.startswith("deep_ep")]:
            del sys.modules[name]


def _rank(rank, store, results):
    import torch.distributed as dist  # noqa: PLC0415 (in a process of its own)

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)

    class Communicator:
        group = dist.group.WORLD

    sizes = [1, 3]
    whole = torch.arange(8.0).view(4, 2) * (rank + 1)
    part = torch.empty(sizes[rank], 2)
    standins._reduce_scatter(Communicator(), part, whole, sizes=sizes)
    gathered = torch.empty(4, 2)
    standins._all_gather(Communicator(), gathered, part, sizes=sizes)
    results.put((rank, part.tolist(), gathered.tolist()))
    dist.destroy_process_group()


def test_uneven_collectives_over_gloo_are_what_nccl_s_would_be(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, tmp_path / "store", results)) for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    answers = sorted(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=30)
    total = torch.arange(8.0).view(4, 2) * 3
    assert answers == [
        (0, total[:1].tolist(), total.tolist()),
        (1, total[1:].tolist(), total.tolist()),
    ]
