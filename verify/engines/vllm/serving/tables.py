"""What is vLLM's about serving it: launches, environment, and the words it refuses with."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from verify.engines.engine import Asked
from verify.engines.layout import Layout
from verify.report.report import Json

PACKAGE = "vllm"
DRIVE = "verify.engines.vllm.serving.inside.drive"

VARIABLES = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_DP_MASTER_IP": "127.0.0.1",
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

# what tiny models and one process a rank need, whatever the layout
PLATFORM = (
    "--dtype=float32",
    "--load-format=seeded",
    "--skip-tokenizer-init",
    "--enforce-eager",
    "--max-model-len=128",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=256",
    "--max-logprobs=-1",
    "--block-size=32",
    # else a gigabyte a rank is filled with zeros
    "--num-gpu-blocks-override=128",
    "--no-enable-prefix-caching",
    "--distributed-executor-backend=external_launcher",
    "--seed=0",
)


# options about how work is spread over ranks: a reference of one rank is started without them
_PARALLEL = """
    -tp --tensor-parallel-size -dp --data-parallel-size -pp --pipeline-parallel-size -ep
    --enable-expert-parallel --decode-context-parallel-size -dcp --prefill-context-parallel-size
    -pcp --disable-custom-all-reduce --all2all-backend --enable-eplb
"""
PARALLEL = frozenset(_PARALLEL.split())


def launch(layout: Layout) -> tuple[str, ...]:
    """The server arguments for a layout, none for one rank."""
    words: list[str] = []
    if layout.tp > 1:
        words += ["--tensor-parallel-size", str(layout.tp)]
    if layout.dp > 1:
        words += ["--data-parallel-size", str(layout.dp)]
    if layout.pp > 1:
        words += ["--pipeline-parallel-size", str(layout.pp)]
    if layout.ep > 1:
        words += ["--enable-expert-parallel"]
    return tuple(words)


def command_line(model: str, folder: str, words: Sequence[str]) -> list[str]:
    """All arguments of one server: the platform's first, so that a launch may override them."""
    del model
    written = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    return [f"--model={folder}", *PLATFORM, *written.get("tiny_arguments", ()), *words]


def asked(finding: Mapping[str, Json]) -> Asked:
    """No finding of scan or prove is about vLLM: both read SGLang's source."""
    del finding
    return Asked(why_not="scan and prove read SGLang's source; this is vLLM")


# how gloo says that ranks brought tensors of different sizes
SIZES_DIFFER = re.compile(
    r"op\.preamble\.length <= op\.nbytes|Mismatch between collective operation|"
    r"Tensors must have identical size|invalid tensor size at index"
)
# how a rank says that another one left a collective
PEER_GONE = re.compile(r"Connection closed by peer|Connection reset by peer|Broken pipe")

NEWEST = "0.32.0"
SIZE = "about 3.5 GB and four minutes"


def requirements(release: str) -> list[str]:
    """Pinned packages, torch for CPU among them: what pip chose for `NEWEST`.

    Without torchvision, torchcodec and torchaudio, whose builds do not load on this torch.
    """
    del release
    return (Path(__file__).parent / "packages.txt").read_text("utf-8").split()
