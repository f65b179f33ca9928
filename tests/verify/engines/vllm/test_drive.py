"""The drive without the engine: prompts, refusals, and what one generation is made into."""

import re
import sys
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from verify.checks.serve import compare  # noqa: E402
from verify.engines.inside import changes  # noqa: E402
from verify.engines.vllm.serving.inside import drive, passes  # noqa: E402

TOKENS = 5


class Offline:
    """Answers each position with log-probabilities made of its token; runs a model a step."""

    def __init__(self):
        self.model = torch.nn.Sequential(torch.nn.Identity())
        self.model.make_empty_intermediate_tensors = dict
        self.runner = SimpleNamespace(
            model=self.model,
            intermediate_tensors=None,
            max_num_tokens=256,
            dtype=1,
            device="cpu",
            kv_caches=[torch.ones(1), [torch.ones(1), torch.ones(1)]],
        )
        worker = SimpleNamespace(worker=SimpleNamespace(model_runner=self.runner))
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))
        self.steps, self.step = [], lambda: None

    def generate(self, given, parameters, use_tqdm):
        for _ in drive.STEPS:
            self.model(torch.zeros(1))
            self.steps.append(self.step())
        return [
            self._answer(prompt["prompt_token_ids"], one)
            for prompt, one in zip(given, parameters, strict=True)
        ]

    def _answer(self, text, asked):
        (forced,), count = asked["allowed_token_ids"], asked["max_tokens"]

        def table(token):
            return {each: SimpleNamespace(logprob=-float(token * each)) for each in range(TOKENS)}

        output = SimpleNamespace(logprobs=[table(forced + step) for step in range(count)])
        prompt = [None, *(table(token) for token in text[:-1])]
        prompt = prompt if asked["prompt_logprobs"] else None
        return SimpleNamespace(prompt_logprobs=prompt, outputs=[output])


def test_prompts_are_of_unequal_length_and_no_two_groups_have_equally_many():
    texts, forced = drive.prompts(0)
    assert len({len(text) for text in texts}) == len(texts) == len(forced) == drive.PROMPTS
    assert drive.prompts(1) != (texts, forced)
    assert drive.shares(2) == [[0, 2, 4, 6], [1, 3, 5]]
    # one prefill takes them all
    assert sum(map(len, texts)) < 256


def engine(monkeypatch, *, first, last):
    """What of vLLM a generation asks for; `first` and `last` say which pipeline stage this is."""
    stage = SimpleNamespace(is_first_rank=first, is_last_rank=last)
    state = SimpleNamespace(get_pp_group=lambda: stage)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    monkeypatch.setitem(sys.modules, "vllm.distributed", SimpleNamespace(parallel_state=state))
    monkeypatch.setitem(sys.modules, "vllm.distributed.parallel_state", state)


def test_a_generation_is_a_row_a_step_and_prompt_of_this_group(monkeypatch):
    engine(monkeypatch, first=True, last=True)
    offline = Offline()
    test = passes.Test(offline=offline, texts=[[1, 2, 3], [4, 5, 6, 7]], forced=[2, 3], mine=[1])
    offline.step = lambda: test.step
    rows = compare.table(test.run())
    assert offline.steps == list(drive.STEPS)
    assert set(rows) == {(step, 1) for step in drive.STEPS}
    # three positions of the prompt, then its first answer
    assert [-rows["prefill", 1][TOKENS * place + 1] for place in range(4)] == [4, 5, 6, 3]
    assert list(rows["decode 3", 1]) == [-6.0 * each for each in range(TOKENS)]
    first, (second, third) = offline.runner.kv_caches
    second.fill_(float("nan"))
    test.run()
    assert offline.steps == 2 * list(drive.STEPS)
    assert [float(each) for each in (first, second, third)] == [0, 0, 0]


def test_an_earlier_stage_asks_for_no_prompt_and_a_later_one_has_where_to_receive(monkeypatch):
    engine(monkeypatch, first=True, last=False)
    given = {"texts": [[1, 2, 3]], "forced": [2], "mine": [0]}
    rows = compare.table(passes.Test(offline=Offline(), **given).run())
    assert set(rows) == {(step, 0) for step in drive.STEPS[1:]}
    engine(monkeypatch, first=False, last=True)
    offline = Offline()
    rows = compare.table(passes.Test(offline=offline, **given).run())
    assert set(rows) == {(step, 0) for step in drive.STEPS}
    assert offline.runner.intermediate_tensors == {"batch_size": 256, "dtype": 1, "device": "cpu"}


def server(answer):
    """vLLM's module of arguments, whose configuration `answer` makes."""
    arguments = SimpleNamespace(create_engine_config=answer)
    parser = SimpleNamespace(parse_args=lambda words: words)
    return SimpleNamespace(
        FlexibleArgumentParser=lambda: parser,
        EngineArgs=SimpleNamespace(
            add_cli_args=lambda parser: parser, from_cli_args=lambda words: arguments
        ),
    )


def test_what_the_server_refuses_is_in_its_own_words(monkeypatch, tmp_path):
    def refuse():
        raise ValueError("1 error\n  heads (4) must be divisible by 3")

    monkeypatch.setattr(drive.os, "environ", dict(drive.os.environ))
    monkeypatch.setitem(drive._ENGINE, "arguments", server(refuse))
    with pytest.raises(drive.RefusedError, match=r"1 error heads \(4\) must be divisible by 3"):
        drive.prepare({"ranks": 3, "launch": []}, tmp_path)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (OSError("no memory"), OSError),
        (ValueError("Model architectures ['A'] failed to be inspected"), NotImplementedError),
    ],
)
def test_a_fault_of_its_own_is_no_refusal(monkeypatch, tmp_path, fault, kind):
    def fail():
        raise fault

    monkeypatch.setattr(drive.os, "environ", dict(drive.os.environ))
    monkeypatch.setitem(drive._ENGINE, "arguments", server(fail))
    with pytest.raises(kind, match=re.escape(str(fault))):
        drive.prepare({"ranks": 1, "launch": []}, tmp_path)


def test_a_slice_is_spoiled_on_its_rank_only_and_put_back():
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    for rank, right in ((0, before), (1, torch.zeros(2, 2))):
        change = {"slice": "weight", "rank": 1}
        with passes._changed(change, model=model, collectives=None, rank=rank):
            assert torch.equal(model.weight, right)
        assert torch.equal(model.weight, before)


def test_weights_move_by_their_rounding_and_come_back():
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with changes.moved(model, size=2.0**-23, seed=0):
        moved = ((model.weight - before) / before).abs()
        assert 0 < moved.max() <= 2.0**-22
    assert torch.equal(model.weight, before)
