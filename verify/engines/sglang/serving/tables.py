"""What is SGLang's about serving it: launches, environment, and the words it refuses with."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from verify.engines.layout import Layout

PACKAGE = "sglang"
DRIVE = "verify.engines.sglang.serving.inside.drive"

VARIABLES = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
    "TRITON_INTERPRET": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

GPU_DRIVE = "verify.engines.sglang.serving.inside.gpu"
GPU_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "SGLANG_ENABLE_JIT_DEEPGEMM": "0",
    # others may have cases on the same GPUs
    "SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "0",
}
# one run: Triton's interpreter takes minutes for all corruptions of a model of two layers
CPU_CASE_S = 240.0
# one run: import, kernels that are compiled at first use, all corruptions
GPU_CASE_S = 200.0

# what a CPU without the engine's own kernels needs, whatever the layout
PLATFORM = (
    "--device=cpu",
    "--dtype=float32",
    "--load-format=dummy",
    "--sampling-backend=pytorch",
    "--disable-cuda-graph",
    "--max-total-tokens=1024",
    "--max-running-requests=8",
    "--skip-tokenizer-init",
    "--log-level=error",
    "--page-size=1",
    "--triton-attention-num-kv-splits=1",  # an interpreter takes one program after the other
    "--disable-overlap-schedule",
    "--disable-radix-cache",
    "--chunked-prefill-size=512",
)
# on GPUs: kernels that every release has, and norms that take no float32
GPU_PLATFORM = (
    "--device=cuda",
    "--dtype=bfloat16",
    "--attention-backend=triton",
    "--mem-fraction-static=0.6",
    # one GPU makes the shared expert a routed one, expert parallelism does not: one set of weights
    "--disable-shared-experts-fusion",
    *PLATFORM[2:],
    "--log-level=info",
)
# unless the tiny configuration names another: models whose attention it refuses
BACKEND = "torch_native"


# options about how work is spread over ranks (arg_groups/fields/parallel.py of 0.5.23, and older
# names of server_args.py): a reference of one rank is started without them
_PARALLEL = """
    --tp --tp-size --tensor-parallel-size --dp --dp-size --data-parallel-size --attn-dp-size
    --attention-data-parallel-size --pp --pp-size --pipeline-parallel-size --pp-async-batch-depth
    --pp-max-micro-batch-size --ep --ep-size --expert-parallel-size --dcp-size
    --decode-context-parallel-size --dcp-comm-backend --dcp-replicate-q-proj --attn-cp-size
    --attention-context-parallel-size --enable-prefill-cp --enable-prefill-context-parallel
    --enable-nsa-prefill-context-parallel --cp-strategy --prefill-cp-mode --nsa-prefill-cp-mode
    --enable-cp-tp-group-sharing --enable-cp-decode-attn-tp --enable-kv-cache-sharding
    --enable-dsa-cache-layer-split --moe-dp-size --moe-data-parallel-size --dwdp-size
    --moe-dense-tp-size --shared-experts-tp-size --enable-shared-experts-attn-tp
    --enable-dense-mlp-attn-tp --enable-layernorm-sp --enable-dp-attention --enable-dp-lm-head
    --enable-tp-lm-head-all-to-all --enable-attn-tp-input-scattered --disable-attn-tp-gather
    --load-balance-method --moe-a2a-backend --disable-custom-all-reduce
    --enable-dp-attention-local-control-broadcast --enable-flashinfer-allreduce-fusion
    --flashinfer-allreduce-fusion-backend --enforce-disable-flashinfer-allreduce-fusion
    --enable-aiter-allreduce-fusion --enable-fused-moe-sum-all-reduce
"""
PARALLEL = frozenset(_PARALLEL.split())


def launch(layout: Layout) -> tuple[str, ...]:
    """The server arguments for a layout, none for one rank."""
    words: list[str] = []
    if layout.tp > 1:
        words += ["--tp-size", str(layout.tp)]
    if layout.dp > 1:
        words += ["--dp-size", str(layout.dp), "--enable-dp-attention"]
    if layout.cp > 1:
        words += ["--attn-cp-size", str(layout.cp)]
    if layout.ep > 1:
        words += ["--ep-size", str(layout.ep)]
    if layout.moe_dp > 1:
        words += ["--moe-dp-size", str(layout.moe_dp)]
    if layout.dense:
        words += ["--moe-dense-tp-size", str(layout.dense)]
    return tuple(words)


def command_line(model: str, folder: str, words: Sequence[str]) -> list[str]:
    """All arguments of one server: the platform's first, so that a launch may override them."""
    del model
    written = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    backend = written.get("tiny_attention", BACKEND)
    return [f"--model-path={folder}", *PLATFORM, f"--attention-backend={backend}", *words]


def gpu_command_line(model: str, folder: str, words: Sequence[str]) -> list[str]:
    """As `command_line`, for a server on GPUs."""
    del model
    return [f"--model-path={folder}", *GPU_PLATFORM, *words]


# how gloo says that ranks brought tensors of different sizes
SIZES_DIFFER = re.compile(
    r"op\.preamble\.length <= op\.nbytes|Mismatch between collective operation|"
    r"Tensors must have identical size|invalid tensor size at index"
)
# how a rank says that another one left a collective
PEER_GONE = re.compile(r"Connection closed by peer|Connection reset by peer|Broken pipe")

NEWEST = "0.5.23"
SIZE = "about 2.7 GB and four to seven minutes"

# 0.5.19 imports names that a later transformers has lost
_OLDER = {"transformers": "5.12.1", "tokenizers": "0.22.2", "huggingface_hub": "1.9.0"}
_EXCEPTIONS = {"0.5.19": _OLDER}


def requirements(release: str) -> list[str]:
    """Pinned packages, torch for CPU among them, that a release is imported with.

    A torch other than the release pins served 0.5.10.post1 to 0.5.23.
    """
    lines = (Path(__file__).parent / "packages.txt").read_text("utf-8").split()
    pins = dict(line.split("==") for line in lines) | _EXCEPTIONS.get(release, {})
    pins["torch"] += "+cpu"
    return [f"{name}=={version}" for name, version in pins.items()]
