"""Stands between the engine's one-batch correctness test and its steps, and keeps what they say.

The test can be run several times over one loaded model: `Record.run` gives each time's rows.
"""

import base64
import importlib
from collections.abc import Callable
from inspect import signature
from typing import Any

from verify.engines.sglang.serving.inside import pictures

CUT = 4
DECODE = 3
STEPS = ("prefill", "extension", *(f"decode {number + 1}" for number in range(DECODE)))
CACHED = "prepare_extend_inputs_for_correctness_test"
REPLACED = ("extend", "decode", "load_model", CACHED)
# what the test does to its process before it loads the model, in some releases; once is enough
_ONCE = ("publish", "_init_process_global_configs", "configure_logger")


class Record:
    """`batch` is the engine's test; `mine` are the prompts of this rank's group.

    `seed` is that of what pictures say.
    """

    def __init__(
        self,
        *,
        batch: Any,
        texts: list[list[int]],
        forced: list[list[int]],
        mine: list[int],
        seed: int,
    ) -> None:
        self.unfilled: list[str] = []
        self.runner: Any = None
        self.loaded: Callable[[Any], None] = lambda _model: None
        self._torch: Any = importlib.import_module("torch")
        self._batch, self._texts, self._forced, self._mine = batch, texts, forced, mine
        self._seed = seed
        self._logits: list[Any] = []
        self._kept: Any = None
        self._original = {name: getattr(batch, name) for name in REPLACED}
        self._request = batch.Req

    @property
    def step(self) -> str:
        """The step that runs, or the last one."""
        return STEPS[min(len(self._logits), len(STEPS) - 1)]

    def install(self) -> None:
        """Take the places of the test's own functions."""
        batch = self._batch

        class Tokens:
            encode = staticmethod(lambda text: self.prompt(int(text))[0])
            decode = staticmethod(str)

        batch.get_tokenizer = lambda *_, **__: Tokens
        batch._read_prompts_from_file = lambda *_, **__: [str(i) for i in self._mine]
        batch.Req = self.request
        batch.extend, batch.decode, batch.load_model = self.extend, self.decode, self.load_model
        setattr(batch, CACHED, self.cached)

    def prompt(self, number: int) -> tuple[list[int], Any]:
        """The prompt's tokens, and the picture in them where the model takes one."""
        model, text = self.runner.model, self._texts[number]
        if not pictures.shown(model):
            return text, None
        return pictures.seen(model, text, prompt=number, seed=self._seed)

    def request(self, rid: int, **named: Any) -> Any:
        """The test's request `rid` of this rank: the prompt `mine[rid]`."""
        # the test numbers its requests; attention DP wants text
        request = self._request(rid=str(rid), **named)
        request.multimodal_inputs = self.prompt(self._mine[rid])[1]
        return request

    def run(self, test: Callable[[], None]) -> list[dict[str, Any]]:
        """The rows of one run of the test, with the memory for keys and values as at first."""
        self._logits = []
        test()
        return self._rows()

    def extend(self, *positional: Any, **named: Any) -> Any:
        """Prefill, and extension over the cached prefix."""
        result = self._original["extend"](*positional, **named)
        self._keep(result[1])
        return result

    def decode(self, ids: Any, *positional: Any, **named: Any) -> Any:
        """One token more, a given one rather than the likeliest: no tie makes runs differ."""
        torch, number = self._torch, len(self._logits) - 2
        given = torch.tensor([self._forced[i][number] for i in self._mine], dtype=ids.dtype)
        given = given.to(ids.device)
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

    def _tell_experts(self, arguments: Any) -> None:
        """What the server was asked for the experts (`--moe-a2a-backend` and others), to them.

        A scheduler does it (`initialize_moe_config`), and the test of newer releases, not of older.
        """
        if hasattr(self._batch, "_init_process_global_configs"):
            return
        tell = self._batch.initialize_moe_config
        tell(*[arguments for _ in signature(tell).parameters])

    def load_model(self, *positional: Any, **named: Any) -> Any:
        """Fresh memory holds NaN while the model loads, so that an unfilled parameter shows.

        It loads once: from the second time on the same model comes back with empty pools.
        """
        if self._kept is not None:
            self._kept[0].clear()
            return self._kept
        torch = self._torch
        self._tell_experts(positional[0])
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        self._kept = self._original["load_model"](*positional, **named)
        torch.use_deterministic_algorithms(mode=False)
        self.runner = getattr(self._kept[0], "torch_runner", self._kept[0])
        self.unfilled = [
            name
            for name, parameter in self.runner.model.named_parameters()
            if parameter.is_floating_point() and bool(torch.isnan(parameter).any())
        ]
        for name in _ONCE:
            if hasattr(self._batch, name):
                setattr(self._batch, name, lambda *_, **__: None)
        self.loaded(self.runner.model)
        return self._kept

    def _rows(self) -> list[dict[str, Any]]:
        """A row a step and prompt of this rank: base64 of float32 log-probabilities by token."""
        torch = self._torch
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
        self._logits.append(logits.float().cpu().clone()[: len(self._mine)])
