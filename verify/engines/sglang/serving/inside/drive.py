"""Drives SGLang's own one-batch correctness test on one rank of a launch, and keeps what it says.

Prefill of 4 tokens, extension over the cached prefix, decode with given tokens. `load_model`,
`extend` and `decode` have the same signatures in 0.5.10.post1, 0.5.11, 0.5.19, 0.5.20, 0.5.23.
"""

import base64
import importlib
import os
import random
from pathlib import Path
from typing import Any

from verify.engines.sglang.serving.inside import stubs

# an odd number, so that no two groups of ranks that share prompts out have equally many
PROMPTS = 7
CUT = 4
DECODE = 3
BATCH = 8
VOCABULARY = 250
STEPS = ("prefill", "extension", *(f"decode {number + 1}" for number in range(DECODE)))
CACHED = "prepare_extend_inputs_for_correctness_test"
REPLACED = ("extend", "decode", "load_model", CACHED)

_ENGINE: dict[str, Any] = {}


class RefusedError(Exception):
    """The server does not accept this launch; the message is its own."""


def load() -> dict[str, Any]:
    """Import the engine with its stand-ins; its version and where it lies."""
    stubs.install()
    torch = importlib.import_module("torch")
    standins = importlib.import_module("verify.engines.sglang.serving.inside.standins")
    standins.register_custom_ops()
    standins.own_config_names()
    try:
        batch = importlib.import_module("sglang.benchmark.one_batch")
    except ImportError:
        batch = importlib.import_module("sglang.bench_one_batch")
    importlib.import_module("sglang.srt.models.registry")
    arguments = importlib.import_module("sglang.srt.server_args")
    standins.install()
    sglang = importlib.import_module("sglang")
    _ENGINE.update(torch=torch, batch=batch, arguments=arguments)
    return {
        "version": sglang.__version__,
        "source": str(Path(str(sglang.__file__)).parent.parent),
        "torch": torch.__version__,
        "stand_ins": standins.ALL,
        "stubs": list(stubs.STUBBED),
    }


def prompts(seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of unequal length, all longer than `CUT`, and the tokens that decode is given."""
    draw = random.Random(seed)
    lengths = draw.sample(range(CUT + 2, CUT + 2 + 2 * PROMPTS), PROMPTS)
    texts = [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in lengths]
    return texts, [[draw.randrange(3, VOCABULARY) for _ in range(DECODE)] for _ in texts]


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """The server's own reading of the launch. Raises `RefusedError` with its words.

    A case with `write` has no ranks: it writes that model's configuration into `into`.
    """
    tiny = importlib.import_module("verify.engines.sglang.serving.inside.tiny")
    if "write" in case:
        Path(case["into"]).mkdir()
        tiny.write(case["write"], Path(case["into"]))
        return None
    tiny.register(Path(case["model"]))
    server, batch = _ENGINE["arguments"], _ENGINE["batch"]
    count = case["ranks"]
    os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(
        str(rank % (os.cpu_count() or 1)) for rank in range(count)
    )
    try:
        arguments = server.prepare_server_args(case["launch"])
        if hasattr(arguments, "resolve_once"):
            arguments.resolve_once()
    except SystemExit as error:
        # argparse has written its reason to the log
        log = Path(folder, "log").read_text("utf-8", "replace").strip().splitlines()
        raise RefusedError(log[-1] if log else f"exit {error.code}") from error
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from error
    test = batch.BenchArgs(
        batch_size=(BATCH,),
        output_len=(DECODE + 1,),
        correctness_test=True,
        cut_len=CUT,
        prompt_filename="given",
    )
    return arguments, server.PortArgs.init_new(arguments), test


def rank(prepared: Any, case: dict[str, Any], folder: Path, rank: int) -> dict[str, Any]:
    """One rank's log-probabilities: `rows` of step, prompt and base64 of float32 by token."""
    torch, batch = _ENGINE["torch"], _ENGINE["batch"]
    torch.set_num_threads(1)
    arguments, ports, test = prepared
    texts, forced = prompts(case["seed"])
    group = rank // (case["ranks"] // case["groups"])
    mine = [i for i in range(len(texts)) if i % case["groups"] == group]
    record = Record(batch=batch, texts=texts, forced=forced, mine=mine, probe=case["probe"])
    record.install()
    if case["patch"]:
        source = Path(case["patch"]).read_text("utf-8")
        exec(compile(source, case["patch"], "exec"), {"__name__": "patch"})
    weights = importlib.import_module("verify.engines.sglang.serving.inside.weights")
    weights.install(seed=case["seed"], shapes=Path(case["model"], "shapes.json"))
    batch.correctness_test(arguments, ports, test, rank, rank)
    return {"rows": record.rows(), "unfilled": record.unfilled}


class Record:
    """Stands between the correctness test and its steps, and keeps their log-probabilities."""

    def __init__(
        self,
        *,
        batch: Any,
        texts: list[list[int]],
        forced: list[list[int]],
        mine: list[int],
        probe: float,
    ) -> None:
        self._probe = probe
        self.unfilled: list[str] = []
        self._batch, self._texts, self._forced, self._mine = batch, texts, forced, mine
        self._logits: list[Any] = []
        self._original = {name: getattr(batch, name) for name in REPLACED}
        self._request = batch.Req

    def install(self) -> None:
        """Take the places of the test's own functions."""
        batch, texts = self._batch, self._texts

        class Tokens:
            encode = staticmethod(lambda text: texts[int(text)])
            decode = staticmethod(str)

        batch.get_tokenizer = lambda *_, **__: Tokens
        batch._read_prompts_from_file = lambda *_, **__: [str(i) for i in self._mine]
        # the test numbers its requests; attention DP wants text
        batch.Req = lambda rid, **named: self._request(rid=str(rid), **named)
        batch.extend, batch.decode, batch.load_model = self.extend, self.decode, self.load_model
        setattr(batch, CACHED, self.cached)

    def extend(self, *positional: Any, **named: Any) -> Any:
        """Prefill, and extension over the cached prefix."""
        result = self._original["extend"](*positional, **named)
        self._keep(result[1])
        return result

    def decode(self, ids: Any, *positional: Any, **named: Any) -> Any:
        """One token more, a given one rather than the likeliest: no tie makes runs differ."""
        torch, number = _ENGINE["torch"], len(self._logits) - 2
        given = torch.tensor([self._forced[i][number] for i in self._mine], dtype=ids.dtype)
        given = torch.cat([given, ids[len(self._mine) :]])
        result = self._original["decode"](given, *positional, **named)
        self._keep(result[1])
        return result

    def cached(self, settings: Any, ids: Any, requests: Any, runner: Any) -> Any:
        """Extension reads each request's own cached prefix.

        The test of some releases (0.5.11) takes row i of the pool for request i although rows
        begin at 1, so that requests read each other's prefixes; later ones have put it right.
        """
        requests = self._original[CACHED](settings, ids, requests, runner)
        for request in requests:
            row = getattr(request, "req_pool_idx", None)
            if row is not None and hasattr(request, "prefix_indices"):
                pool = runner.req_to_token_pool.req_to_token
                request.prefix_indices = pool[row, :CUT].to(request.prefix_indices.dtype)
        return requests

    def load_model(self, *positional: Any, **named: Any) -> Any:
        """Fresh memory holds NaN while the model loads, so that an unfilled parameter shows."""
        torch = _ENGINE["torch"]
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        result = self._original["load_model"](*positional, **named)
        torch.use_deterministic_algorithms(mode=False)
        runner = getattr(result[0], "torch_runner", result[0])
        if self._probe:
            _perturb(runner.model, self._probe)
        self.unfilled = [
            name
            for name, parameter in runner.model.named_parameters()
            if parameter.is_floating_point() and bool(torch.isnan(parameter).any())
        ]
        return result

    def rows(self) -> list[dict[str, Any]]:
        """A row a step and prompt of this rank."""
        torch = _ENGINE["torch"]
        return [
            {
                "step": step,
                "prompt": prompt,
                "logprobs": base64.b64encode(
                    torch.log_softmax(logits[place], -1).numpy().astype("<f4").tobytes()
                ).decode(),
            }
            for step, logits in zip(STEPS, self._logits, strict=False)
            for place, prompt in enumerate(self._mine)
        ]

    def _keep(self, logits: Any) -> None:
        self._logits.append(logits.float().clone()[: len(self._mine)])


def _perturb(model: Any, size: float) -> None:
    """Every weight larger or smaller by `size` of itself, at random."""
    torch = _ENGINE["torch"]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                up = torch.randint(0, 2, parameter.shape, generator=draw).to(parameter.dtype)
                parameter.mul_(1 + size * (2 * up - 1))
