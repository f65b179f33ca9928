"""The test between its steps: loaded once, each time with empty pools; weights moved and back."""

import types

import pytest

torch = pytest.importorskip("torch")
from verify.engines.inside import changes  # noqa: E402
from verify.engines.sglang.serving.inside import record  # noqa: E402


class Runner:
    def __init__(self, model):
        self.model, self.cleared = model, 0

    def clear(self):
        self.cleared += 1


def engine(model):
    """An engine's test with the functions that `Record` replaces; `loads` counts."""
    batch = types.SimpleNamespace(loads=0, published=0, Req=dict, told=[])

    def load_model(arguments):
        assert batch.told == [arguments]
        batch.loads += 1
        return Runner(model), None

    def tell(arguments):
        batch.told.append(arguments)

    def publish():
        batch.published += 1

    def forward(ids=None):
        return ids, model(torch.ones(1, 2)), None

    batch.load_model, batch.publish = load_model, publish
    batch.initialize_moe_config = tell
    batch.extend, batch.decode = forward, lambda ids: forward(ids)[:2]
    setattr(batch, record.CACHED, lambda *_: [])

    def test():
        batch.publish()
        runner, _ = batch.load_model("arguments")
        batch.extend()
        batch.extend()
        for _ in range(record.DECODE):
            batch.decode(torch.tensor([7]))
        return runner

    batch.test = test
    return batch


@pytest.fixture
def kept():
    model = torch.nn.Linear(2, 3).requires_grad_(requires_grad=False)
    batch = engine(model)
    texts, forced = [[3] * 6], [[4, 5, 6]]
    whole = record.Record(batch=batch, texts=texts, forced=forced, mine=[0], seed=0)
    whole.install()
    whole.batch, whole.model = batch, model
    return whole


def test_the_model_is_loaded_once_and_its_pools_are_empty_each_time(kept):
    first, second = kept.run(kept.batch.test), kept.run(kept.batch.test)
    assert first == second
    assert [row["step"] for row in first] == list(record.STEPS)
    assert (kept.batch.loads, kept.batch.published, kept.runner.cleared) == (1, 1, 1)


def test_a_parameter_that_nobody_filled_is_named(kept):
    torch.nn.init.constant_(kept.model.bias, float("nan"))
    kept.run(kept.batch.test)
    assert kept.unfilled == ["bias"]


def test_weights_move_by_what_was_asked_and_come_back_to_the_bit(kept):
    before = [each.detach().clone() for each in kept.model.parameters()]
    said = kept.run(kept.batch.test)
    with changes.moved(kept.model, size=0.25, seed=1):
        moved = [each.detach().clone() for each in kept.model.parameters()]
        assert kept.run(kept.batch.test) != said
    for old, new in zip(before, moved, strict=True):
        assert torch.allclose((new / old - 1).abs(), torch.tensor(0.25))
    assert kept.run(kept.batch.test) == said


def test_another_seed_moves_otherwise(kept):
    def weights(seed):
        with changes.moved(kept.model, size=0.25, seed=seed):
            return kept.model.weight.detach().clone()

    assert torch.equal(weights(1), weights(1))
    assert any(not torch.equal(weights(1), weights(seed)) for seed in range(2, 6))


def test_a_part_that_is_zero_already_is_no_part_to_make_wrong(tmp_path):
    shapes = tmp_path / "shapes.json"
    shapes.write_text('{"weight": {"shape": [6, 2]}, "bias": {"shape": [3]}}')
    model = torch.nn.Linear(2, 3).requires_grad_(requires_grad=False)
    assert changes.parts_held(model, shapes) == ["weight"]
    model.weight.zero_()
    assert changes.parts_held(model, shapes) == []


def test_a_test_that_tells_its_experts_is_left_to_it():
    """As newer releases' does; what older ones tell takes the arguments or what is published."""
    batch = engine(torch.nn.Linear(2, 2))
    kept = record.Record(batch=batch, texts=[], forced=[], mine=[], seed=0)
    batch.initialize_moe_config = lambda: batch.told.append("published")
    kept._tell_experts("arguments")
    assert batch.told == ["published"]
    batch._init_process_global_configs = None
    kept._tell_experts("arguments")
    assert batch.told == ["published"]


def test_each_request_reads_its_own_cached_prefix(kept):
    """Those of 0.5.11 all come with the first one's; what was never cached stays as it is."""
    table = torch.arange(2 * 8, dtype=torch.int64).reshape(2, 8)
    runner = types.SimpleNamespace(req_to_token_pool=types.SimpleNamespace(req_to_token=table))
    requests = [
        types.SimpleNamespace(req_pool_idx=row, prefix_indices=table[0, : record.CUT])
        for row in (0, 1)
    ]
    requests.append(types.SimpleNamespace(req_pool_idx=None, prefix_indices="untouched"))
    setattr(kept.batch, record.CACHED, lambda *_: requests)
    whole = record.Record(batch=kept.batch, texts=[], forced=[], mine=[], seed=0)
    own = whole.cached(None, None, requests, runner)
    assert [list(one.prefix_indices) for one in own[:2]] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert own[2].prefix_indices == "untouched"
