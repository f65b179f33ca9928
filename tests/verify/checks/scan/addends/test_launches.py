"""What a server refuses is no finding; delete the refusal and it is one again."""

import gc
import re
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import pytest

from verify.checks.scan.server.loader import refuses_checkpoint
from verify.engines.sglang.library import LIBRARY
from verify.interpreter.index import Index

Judge = Callable[..., Any]

SERVER = """
from sglang.srt.arg_groups.hooks import check_weights
from sglang.srt.utils import get_platform


class ServerArgs:
    tp_size: int = 1
    dp_size: int = 1
    ep_size: int = 1
    enable_dp_attention: bool = False
    dwdp_size: int = 1
    moe_dense_tp_size: int = None
    moe_a2a_backend: str = "none"
    model_path: str = None

    def __post_init__(self):
        config = self.get_model_config().hf_config
        arch = config.architectures[0]
        if self.dwdp_size > 1:
            self.enable_dp_attention = True
            self.ep_size = self.dp_size = self.tp_size
        REFUSAL
        self._finish()

    def _finish(self):
        pass
"""
OAK = (
    "from elsewhere import kernel\n",
    """from elsewhere import kernel
from sglang.srt.configs.oak import OakConfig

EntryClass = [OakForCausalLM]


class OakForCausalLM:
    def __init__(self, config: OakConfig):
        self.layers = make_layers(config.n, lambda index: Layer(config, index))


""",
)
CONFIG = 'class OakConfig:\n    model_type = "oak"\n'
HOOKS = """
WITHOUT = ("oak", "elm")


def check_weights(args, config):
    if args.dwdp_size <= 1:
        return
    kind = config.model_type
    assert kind not in WITHOUT, "not these"
"""
REFUSALS = {
    "by architecture": """if arch == "OakForCausalLM" and self.dwdp_size > 1:
            raise ValueError("not this one")""",
    "by a list": """if self.dwdp_size > 1:
            if arch in ["ElmForCausalLM", "OakForCausalLM"]:
                raise ValueError("not these")""",
    "by what is left": """if self.dwdp_size > 1 and arch not in ("ElmForCausalLM",):
            raise ValueError("only that one")""",
    "by another option": """if self.dp_size > 1:
            assert self.moe_a2a_backend != "none", "needs a backend\"""",
    "in a helper, by type": "check_weights(self, config)",
    "on every platform": """if self.dwdp_size > 1:
            if get_platform().is_cuda:
                raise ValueError("not on CUDA")
            else:
                raise NotImplementedError""",
    "reset": "self.dwdp_size = 1",
}


def knows_it(change: Any) -> dict[str, str]:
    """Rows are local with data-parallel weights; the shared expert does not know."""
    return {
        path: text.replace(
            "or should_use_flashinfer_cutlass_moe_fp4_allgather()",
            "or should_use_flashinfer_cutlass_moe_fp4_allgather() or get_parallel().dwdp_size > 1",
        )
        for path, text in change.library.items()
    }


def server(refusal: str) -> dict[str, str]:
    return {
        "server_args.py": SERVER.replace("REFUSAL", refusal),
        "arg_groups/hooks.py": HOOKS,
        "configs/oak.py": CONFIG,
    }


def scanned(judged: Judge, change: Any, files: Mapping[str, str], *more: tuple[str, str]) -> Any:
    return judged(OAK, *more, library={**knows_it(change), **files})


def test_a_launch_that_is_taken_is_printed(judged: Judge, change: Any) -> None:
    (finding,) = scanned(judged, change, server("pass")).findings
    assert finding.launch == ("--tp-size", "4", "--dwdp-size", "4")
    assert (finding.reach, finding.refused) == ("option", ())


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_launch_that_is_refused_is_no_finding(judged: Judge, change: Any, refusal: str) -> None:
    result = scanned(judged, change, server(refusal))
    assert result.rules == []
    (refused,) = result.refused
    (line,) = refused.refused
    assert re.match(r"sglang/srt/(server_args|arg_groups/hooks)\.py:\d+: --tp-size 4", line)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_it_is_told_by_no_name(judged: Judge, change: Any, refusal: str) -> None:
    """Every name of the model is another: only names differ in what is refused."""

    def renamed(text: str) -> str:
        return text.replace("Oak", "Yew").replace("oak", "yew")

    files = {renamed(path): renamed(text) for path, text in server(refusal).items()}
    result = judged((OAK[0], renamed(OAK[1])), library={**knows_it(change), **files})
    assert result.rules == []
    assert len(result.refused) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        'if arch == "ElmForCausalLM" and self.dwdp_size > 1:\n            raise ValueError',
        "if get_platform().is_cuda:\n            raise ValueError",
        "if self.dwdp_size > 8:\n            raise ValueError",
        "if config.hidden_size > 4096:\n            raise ValueError",
        "try:\n            raise ValueError\n        except ValueError:\n            pass",
        "for name in config.names:\n            raise ValueError(name)",
        "most = 8\n        if get_platform().is_cuda:\n            most = 1\n"
        "        if self.dwdp_size > most:\n            raise ValueError",
        "if self.tp_size > 1:\n            raise ValueError('what ends every launch is misread')",
    ],
)
def test_what_is_not_refused_for_sure_is_a_finding(
    judged: Judge, change: Any, refusal: str
) -> None:
    assert scanned(judged, change, server(refusal)).rules == [("lost-addend", "0000")]


@pytest.mark.parametrize(
    "hostile",
    [
        "x = (1,)\n" + "        x = x + x\n" * 60,
        "x = 3\n" + "        x = x * x\n" * 60,
        "x = 'ab'\n" + "        x = x.replace('a', 'aaaaaaaaaa')\n" * 60,
        "x = 1\n" + "        x = (x, x)\n" * 60 + "        y = x == x\n",
        "while True:\n            self._finish()",
        "self.__post_init__()",
        "run_hook()\n        run_post_process_pass(self)\n        declare_resolution()\n"
        "        collect_model_override_declarations()",
        "min()\n        int('x')\n        [][0]\n        1 // 0\n        {}['a']",
    ],
)
def test_a_hostile_source_costs_a_moment(judged: Judge, change: Any, hostile: str) -> None:
    assert scanned(judged, change, server(hostile)).rules == [("lost-addend", "0000")]


def test_a_source_without_argument_handling_refuses_nothing(judged: Judge, change: Any) -> None:
    (finding,) = scanned(judged, change, {"configs/oak.py": CONFIG}).findings
    assert (finding.launch, finding.reach) == ((), None)


ATTENTION = """
class Attention:
    def __init__(self, config):
        assert get_parallel().attn_tp_size == get_parallel().tp_size


class Layer:
    def __init__(self, config, layer_id):
        self.attn = Attention(config)
"""


def test_an_assertion_in_the_attention_refuses(judged: Judge, change: Any) -> None:
    """It is no part of what the scan runs: only the server would meet it."""
    head = "class Layer:\n    def __init__(self, config, layer_id):\n"
    result = scanned(judged, change, server("pass"), (head, ATTENTION.lstrip("\n")))
    assert result.rules == []
    (refused,) = result.refused
    assert "models/sample.py:" in refused.refused[0]
    harmless = ATTENTION.lstrip("\n").replace("== get_parallel().tp_size", "> 0")
    assert scanned(judged, change, server("pass"), (head, harmless)).rules


MIXER = """
class Mixer:
    def __init__(self, config, reduce_results=True):
        self.ring = RadixLinearAttention(config.n)
        group = "attn_tp" if OWN else "tp"
        self.out = RowParallelLinear(config.n, config.h, parallel_group=group)


class Plain:
    def __init__(self, config):
        self.ring = RadixAttention(config.n)
        self.out = RowParallelLinear(config.n, config.h, parallel_group="attn_tp")


class Layer:
    def __init__(self, config, layer_id):
        if TEST:
            self.attn = Mixer(config)
        else:
            self.attn = Plain(config)
"""


@pytest.mark.parametrize(
    ("own", "test", "refused"),
    [
        ("False", "config.rings(layer_id)", True),
        ("False", "layer_id % 4 == 3 and not layer_id in config.plain", True),
        ("False", "True", True),
        # one checkpoint has it, another does not
        ("False", "config.rings", False),
        ("False", "config.kind == 'rings' and layer_id % 4", False),
        ("False", "False", False),
        ("True", "True", False),
    ],
)
def test_a_mixer_that_sums_over_other_ranks_tokens_refuses(
    judged: Judge, change: Any, own: str, test: str, refused: bool
) -> None:
    """Whatever the experts' sum is, what it is made of is wrong: where some layer always has it."""
    head = "class Layer:\n    def __init__(self, config, layer_id):\n"
    mixer = MIXER.lstrip("\n").replace("OWN", own).replace("TEST", test)
    result = scanned(judged, change, server("pass"), (head, mixer))
    assert (result.rules == []) == refused
    if refused:
        (line,) = result.refused[0].refused
        assert re.match(r"sglang/srt/models/sample\.py:\d+: --tp-size 4 --dwdp-size 4", line)


def test_a_vocabulary_that_is_split_over_all_ranks_refuses(judged: Judge, change: Any) -> None:
    """dwdp comes with attention data parallelism: its sum is over ranks with other tokens."""

    def with_embedding(arguments: str) -> Any:
        model = OAK[1].replace(
            "        self.layers",
            f"        self.embed = VocabParallelEmbedding(config.n, config.h{arguments})\n"
            "        self.layers",
        )
        files = {**knows_it(change), **server("pass")}
        return judged((OAK[0], model), library=files)

    result = with_embedding("")
    assert result.rules == []
    assert "models/sample.py:" in result.refused[0].refused[0]
    told = with_embedding(", use_attn_tp_group=is_dp_attention_enabled()")
    assert told.rules == [("lost-addend", "0000")]


def test_a_vocabulary_beside_a_table_of_layers(judged: Judge, change: Any) -> None:
    """Nothing is seen to build the layer by its name: the models of its file stack it."""

    def with_table(arguments: str) -> Any:
        model = OAK[1].replace(
            "        self.layers = make_layers(config.n, lambda index: Layer(config, index))",
            f"        self.embed = VocabParallelEmbedding(config.n, config.h{arguments})\n"
            "        self.layers = make_layers(\n"
            "            config.n, lambda index: KINDS[config.kinds[index]](config, index)\n"
            "        )",
        )
        norm = "        return self.comm.postprocess_layer(hidden_states, residual, batch)\n"
        table = (norm, norm + '\n\nKINDS = {"plain": Layer}\n')
        files = {**knows_it(change), **server("pass")}
        return judged((OAK[0], model), table, library=files)

    result = with_table("")
    assert result.rules == []
    assert "models/sample.py:" in result.refused[0].refused[0]
    told = with_table(", use_attn_tp_group=is_dp_attention_enabled()")
    assert told.rules == [("lost-addend", "0000")]


TYPES = """
class OakConfig:
    model_type = "oak"


class RedOakConfig(OakConfig):
    model_type = "red_oak"
"""


@pytest.mark.parametrize(("asked", "found"), [("oak", True), ("red_oak", True), ("elm", False)])
@pytest.mark.parametrize("annotated", [True, False])
def test_a_layer_for_another_type_of_configuration(
    judged: Judge, change: Any, asked: str, found: bool, annotated: bool
) -> None:
    added = f"        if self.config.model_type == '{asked}':\n            out = out + x\n"
    keeps = ("self.router = ", "self.config = config\n        self.router = ")
    typed = "def __init__(self, config: OakConfig, layer_id):"
    changes = [OAK, change.before_the_sum(added), keeps]
    if annotated:
        changes.append(("def __init__(self, config, layer_id):", typed))
    files = {**server("pass"), "configs/oak.py": TYPES}
    result = judged(*changes, library={**change.library, **files})
    assert bool(result.rules) is (found or not annotated)


@pytest.mark.parametrize(
    ("field", "launch"),
    [
        ("x: int = 1", ("--tp-size", "4", "--dp-size", "4", "--enable-dp-attention")),
        ("dp_size: A[int, Arg(no_cli=True)] = 1", ()),
    ],
)
def test_a_row_of_flags_has_its_launch_in_words_that_the_server_has(
    request: Any, field: str, launch: tuple[str, ...]
) -> None:
    sample = request.getfixturevalue("sample")
    reads = "            use_reduce_scatter=use_reduce_scatter,\n"
    files = server("pass")
    text = files["server_args.py"]
    line = "    dp_size: int = 1\n" if launch == () else ""
    files["server_args.py"] = text.replace(line, "").replace("Args:\n", f"Args:\n    {field}\n", 1)
    block = sample.changed(sample.block, reads, "")
    scan = request.getfixturevalue("scanned")
    (finding,) = [
        one
        for one in scan(block, sample.layer, library=files).findings
        if one.rule != "reduces-after-combine"
    ]
    assert (finding.row, finding.launch) == ("0100", launch)


def test_a_whole_value_in_a_sum_is_launched_into_the_rows_that_leave_the_sum(request: Any) -> None:
    sample = request.getfixturevalue("sample")
    adds = "        out = out + identity_part(x)\n        return out\n"
    block = sample.changed(sample.block, "        return out\n", adds)
    whole = "from sglang.srt.layers.moe.identity import identity_part\n"
    given = {"layers/moe/identity.py": "def identity_part(x):\n    return x * 2\n"}
    result = request.getfixturevalue("scanned")(
        whole, block, sample.layer, library={**server("pass"), **given}
    )
    (finding,) = [one for one in result.findings if one.rule == "replicated-addend"]
    # the fused norm has no option in this server
    assert (finding.row, finding.reach) == ("0010", "default")
    attention = ("--dp-size", "4", "--enable-dp-attention")
    assert finding.launch == ("--tp-size", "4", *attention, "--ep-size", "4")
    assert finding.counts


def test_a_sum_for_ranks_with_rows_of_their_own_is_launched_with_such(
    judged: Judge, change: Any
) -> None:
    guarded = "        if get_parallel().attn_dp_size > 1:\n            out = out + x\n"
    result = judged(OAK, change.before_the_sum(guarded), library=server("pass"))
    (finding,) = [one for one in result.findings if one.rule == "replicated-addend"]
    assert finding.launch == ("--tp-size", "4", "--dp-size", "4", "--enable-dp-attention")
    anywhere = judged(OAK, change.before_the_sum(), library=server("pass"))
    (finding,) = [one for one in anywhere.findings if one.rule == "replicated-addend"]
    assert finding.launch == ("--tp-size", "4")


LOADER = """
def _load_strict(owner, weights):
    params_dict = dict(owner.named_parameters())
    for name, weight in weights:
        if name.endswith("experts.down_proj"):
            continue
        if name not in params_dict:
            raise KeyError(name)
        params_dict[name].copy_(weight)


class Yew:
    def load_weights(self, weights):
        return _load_strict(self, weights)
"""
BY_NUMBER = LOADER.replace(
    "    for name, weight", "    params_mapping(make_expert_params_mapping())\n    for name, weight"
)


@pytest.mark.parametrize(
    ("text", "asked", "refused"),
    [
        (LOADER, {"quantization": "oak"}, True),
        (LOADER.replace("Yew", "Oak").replace("_load_strict", "fill"), {"quantization": "x"}, True),
        (LOADER, {"tp_size": 4}, False),
        (LOADER.replace("raise KeyError(name)", "continue"), {"quantization": "oak"}, False),
        (BY_NUMBER, {"quantization": "oak"}, False),
        (
            LOADER.replace("return _load", "super().load_weights(weights)\n        return _load"),
            {"quantization": "oak"},
            False,
        ),
    ],
)
def test_a_strict_loader_refuses_a_checkpoint_with_names_of_its_own(
    source: Any, text: str, asked: Mapping[str, Any], refused: bool
) -> None:
    with source(text) as tree:
        module = Index(tree, LIBRARY).module("sglang/srt/models/sample.py")
        cls = module.lookup("Oak" if "Oak" in text else "Yew")
        found = refuses_checkpoint(cls, asked)
        lines = module.text.splitlines()
    if refused:
        assert lines[found.line - 1].strip() == "raise KeyError(name)"
    else:
        assert found is None


FACTORY = """
class FusedMoE:
    def forward(self, x, topk_output=None):
        return x


class Dispatched:
    def forward(self, x, TAKES):
        return x


def get_moe_impl_class():
    if get_moe_a2a_backend().is_deepep():
        return Dispatched
    return FusedMoE
"""


@pytest.mark.parametrize(
    ("takes", "rules"),
    [
        ("ids, weights, batch", []),
        ("ids, weights=None, batch=None", ["reduces-after-combine"]),
    ],
)
def test_experts_that_cannot_be_called_so_are_not_summed(
    request: Any, takes: str, rules: list[str]
) -> None:
    """The class that a backend picks wants more than the block gives: the call ends there."""
    sample = request.getfixturevalue("sample")
    block = sample.changed(sample.block, "FusedMoE(num", "get_moe_impl_class()(num")
    block = sample.changed(block, "self.experts(x)", "self.experts(x, self.topk(x))")
    asks = "        self.experts = get_moe"
    block = sample.changed(
        block, asks, "        self.deep = get_moe_a2a_backend().is_deepep()\n" + asks
    )
    utils = sample.library["layers/moe/utils.py"]
    named = sample.changed(utils, "Backend:\n", 'Backend:\n    DEEPEP = "deepep"\n')
    library = {
        **server("pass"),
        "layers/moe/experts.py": FACTORY.replace("TAKES", takes),
        "layers/moe/utils.py": named,
    }
    imports = "from sglang.srt.layers.moe.experts import get_moe_impl_class\n"
    result = request.getfixturevalue("scanned")(imports, block, sample.layer, library=library)
    assert [one.rule for one in result.findings] == rules


def test_a_sum_that_is_lost_where_attention_is_whole_needs_attention_dp(judged: Judge) -> None:
    old = "self.tp_size = get_tensor_model_parallel_world_size()"
    asks = (old, "self.tp_size = get_attention_tp_size()")
    result = judged(OAK, asks, library=server("pass"))
    (lost,) = (one for one in result.findings if one.rule == "lost-sum")
    assert lost.row == "0000"
    assert lost.launch == ("--tp-size", "4", "--dp-size", "4", "--enable-dp-attention")


def test_what_ended_a_launch_does_not_keep_what_was_followed(judged: Judge, change: Any) -> None:
    """The collector is off in a scan: what holds itself would stay until its end."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        assert scanned(judged, change, server(REFUSALS["by architecture"]))
        gc.collect()
        held = [one for one in gc.garbage if isinstance(one, FrameType)]
        assert held == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


BOTH = """EntryClass = [ElmForCausalLM, OakForCausalLM]


class ElmForCausalLM(OakForCausalLM):
    pass
"""
NAMED = """def named(config):
    return str(set(config.architectures))


class ServerArgs:"""


def test_one_model_of_two_is_refused_by_a_set_of_names(judged: Judge, change: Any) -> None:
    """What a call did for one model it does not do for the other."""
    refusal = """if self.dwdp_size > 1 and named(config) == str(set(("ElmForCausalLM",))):
            raise ValueError("not this one")"""
    files = server(refusal)
    files["server_args.py"] = files["server_args.py"].replace("class ServerArgs:", NAMED)
    both = (OAK[0], OAK[1].replace("EntryClass = [OakForCausalLM]\n", BOTH))
    (finding,) = judged(both, library={**knows_it(change), **files}).findings
    assert finding.launch == ("--tp-size", "4", "--dwdp-size", "4")
    assert len(finding.refused) == 1
