"""The first module at fault: each kind of fault put into a right run, and what is no fault."""

import pytest

torch = pytest.importorskip("torch")
from verify.engines.inside.accuse import Layout, accused, noticed  # noqa: E402

LENGTHS = {"prefill": [2, 2], "decode 1": [1, 1]}
WIDTH = 3


def table(seed, rows=4):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


HIDDEN, ATTENTION, MLP, SECOND = table(0), table(1), table(2), table(3)


def call(name, given, out, step="prefill"):
    return {
        "step": step,
        "name": name,
        "call": 0,
        "inputs": [each.clone() for each in given],
        "outputs": [out.clone()],
        "other": False,
    }


def run(*, attention=ATTENTION, mlp=MLP, after=None, rows=slice(None)):
    """One layer of two blocks and one norm, in the order in which they end."""
    middle = HIDDEN + attention
    end = middle + mlp if after is None else after
    names = [
        call("model.layers.0.self_attn", [HIDDEN], attention),
        call("model.layers.0.mlp.experts", [middle], mlp),
        call("model.layers.0.mlp", [middle], mlp),
        call("model.layers.0", [HIDDEN], end),
        call("model.norm", [end], end * 2),
    ]
    for each in names:
        each["inputs"] = [value[rows] for value in each["inputs"]]
        each["outputs"] = [value[rows] for value in each["outputs"]]
    return names


def laid_out(ranks, shares=([0, 1],), partitions=((0, 1),)):
    return Layout(
        ranks=ranks,
        lengths=LENGTHS,
        shares=[list(share) for share in shares],
        partitions=[list(partition) for partition in partitions],
    )


def judged(*ranks, **layout):
    return accused(run(), [run(mlp=MLP + 1e-6)], list(ranks), laid_out(len(ranks), **layout))


def test_a_right_run_accuses_what_comes_after_the_last_module():
    assert judged(run(), run())["module"] == "what follows the last module"


def test_a_block_that_is_twice_too_large():
    found = judged(run(attention=2 * ATTENTION), run())
    assert (found["module"], found["what"]) == ("model.layers.0.self_attn", "2x")
    assert (found["step"], found["rank"], found["rows"]) == ("prefill", 0, [4, 4])


def test_half_of_it():
    assert judged(run(), run(mlp=MLP / 2))["what"] == "1/2x"


def test_a_layer_that_adds_a_right_block_twice_is_at_fault_and_not_the_block():
    found = judged(*[run(after=HIDDEN + ATTENTION + 2 * MLP)] * 2)
    assert (found["module"], found["what"]) == ("model.layers.0", "2x of model.layers.0.mlp")


def test_a_layer_that_leaves_a_block_out():
    found = judged(*[run(after=HIDDEN + ATTENTION)] * 2)
    assert found["what"] == "without model.layers.0.mlp"


def test_only_the_rows_that_differ_are_counted():
    wrong = MLP.clone()
    wrong[2] *= 3
    found = judged(run(mlp=wrong), run())
    assert (found["what"], found["rows"]) == ("3x", [1, 4])


def test_parts_that_ranks_add_up_later_are_no_fault():
    first, second = run(), run()
    for place in (1, 2):
        first[place]["outputs"], second[place]["outputs"] = [MLP * 0.25], [MLP * 0.75]
    assert judged(first, second)["module"] == "what follows the last module"


def test_parts_that_do_not_add_up_are_a_fault():
    first, second = run(), run()
    first[1]["outputs"], second[1]["outputs"] = [MLP * 0.3], [SECOND]
    assert judged(first, second)["module"] == "model.layers.0.mlp.experts"


def test_parts_add_up_only_within_one_of_the_engines_groups():
    first, second = run(), run()
    for place in (1, 2):
        first[place]["outputs"], second[place]["outputs"] = [MLP * 0.25], [MLP * 0.75]
    assert judged(first, second, partitions=((0,), (1,)))["module"] == "model.layers.0.mlp.experts"


def test_a_module_that_is_given_parts_nobody_added_up():
    first, second = run(), run()
    end = HIDDEN + ATTENTION + MLP
    for calls, share in ((first, 0.25), (second, 0.75)):
        calls[-2]["outputs"] = [end * share]
        calls[-1]["inputs"], calls[-1]["outputs"] = [end * share], [(end * share).tanh()]
    found = judged(first, second)
    assert (found["module"], found["what"]) == (
        "model.norm",
        "takes parts of a sum that no rank has added up",
    )


def test_groups_of_attention_data_parallelism_hold_rows_of_their_own():
    halves = (slice(0, 2), slice(2, 4))
    ranks = [run(rows=rows) for rows in halves]
    assert judged(*ranks, shares=([0], [1]))["module"] == "what follows the last module"
    ranks[1] = run(mlp=2 * MLP, rows=halves[1])
    found = judged(*ranks, shares=([0], [1]))
    assert (found["rank"], found["what"]) == (1, "2x")
    assert found["module"] == "model.layers.0.mlp.experts"


def test_another_ranks_rows():
    halves = (slice(0, 2), slice(2, 4))
    ranks = [run(rows=rows) for rows in halves]
    ranks[0][1]["outputs"] = [MLP[2:4]]
    assert judged(*ranks, shares=([0], [1]))["what"] == "another rank's rows"


def test_not_a_number_is_never_near():
    assert judged(run(mlp=MLP * float("nan")), run())["module"] == "model.layers.0.mlp.experts"


def test_what_moves_with_rounding_is_no_fault():
    near = run(mlp=MLP + 5e-6)
    assert judged(near, near)["module"] == "what follows the last module"


def test_without_comparable_modules_nobody_is_named():
    narrow = [{**each, "outputs": [each["outputs"][0][:, :1]]} for each in run()]
    found = judged(narrow, narrow)
    assert found["module"] is None
    assert found["what"]


def normed(scale=1.0):
    """A block whose sum goes through a norm: no scale of it reaches what follows."""
    block, out = scale * ATTENTION, ATTENTION / ATTENTION.norm(dim=-1, keepdim=True)
    return [call("model.layers.0.self_attn.norm", [block], out), *run()]


def said_of(clean, spoiled):
    moved = normed(1 + 1e-6)
    return noticed(normed(), [moved], [clean, clean], [spoiled, spoiled], laid_out(2))


def test_a_sum_that_a_norm_hides_is_noticed_in_front_of_it():
    found = said_of(normed(), normed(2.0))
    assert (found["module"], found["value"]) == ("model.layers.0.self_attn.norm", "inputs")
    assert (found["step"], found["rank"]) == ("prefill", 0)
    assert found["far"] == pytest.approx(float(ATTENTION.abs().max()))


def test_a_corruption_that_moves_a_right_value_by_little_is_not_noticed():
    assert said_of(normed(), normed()) is None
    # the value may be off by ten times 1e-6 of itself, and a tenth of what shows is that
    assert said_of(normed(), normed(1 + 5e-5)) is None
    assert said_of(normed(), normed(1 + 5e-4)) is not None


def test_nothing_is_noticed_of_a_value_that_is_not_right_in_the_clean_run():
    assert said_of(normed(2.0), normed(4.0)) is None
