"""A collective that is called by another name is not hidden: what keeps it is not analysed."""

import pytest

from verify.checks.scan.command import report

NAME = "tensor_model_parallel_all_reduce"
CALL = f"            out = {NAME}(out)\n"
KEPT = {
    "a table": (f'REDUCERS = {{"tp": {NAME}}}\n', 'REDUCERS["tp"](out)'),
    "a table that is asked": (f'REDUCERS = {{"tp": {NAME}}}\n', 'REDUCERS.get("tp")(out)'),
    "a list": (f"REDUCERS = [{NAME}]\n", "REDUCERS[0](out)"),
    "a function that picks": (f"def pick():\n    return {NAME}\n", "pick()(out)"),
    "another name": (f"REDUCE = {NAME}\n", "REDUCE(out)"),
    "a partial call": (f"REDUCE = functools.partial({NAME})\n", "REDUCE(out)"),
    "a function without a name": (f"REDUCE = lambda x: {NAME}(x)\n", "REDUCE(out)"),
    "one of a class": (f"class Of:\n    red = lambda self, x: {NAME}(x)\n", "Of().red(out)"),
    "a default": (f"def red(x, how={NAME}):\n    return how(x)\n", "red(out)"),
    "an attribute": ("", f"getattr(distributed, {NAME!r})(out)"),
    "a local table": ("", f'{{"tp": {NAME}}}["tp"](out)'),
    "one of two": ("", f"({NAME} if self.tp_size > 1 else abs)(out)"),
    "a group's method": ("REDUCE = get_tp_group().all_reduce\n", "REDUCE(out)"),
}


def not_analysed(result):
    return [one for one in report(result).findings if one.rule == "not-analysed"]


def test_what_is_called_by_its_name_is_no_such_thing(scanned, sample):
    assert not_analysed(scanned(sample.block, sample.layer)) == []


@pytest.mark.parametrize(("kept", "called"), KEPT.values(), ids=KEPT)
def test_a_second_sum_under_another_name(scanned, sample, kept, called):
    """The first one is right: only that nobody looked at the second says that something may be."""
    block = sample.changed(sample.block, CALL, f"{CALL}            out = {called}\n")
    (finding,) = not_analysed(scanned(f"\n\n{kept}\n\n", block, sample.layer))
    assert finding.file == "sglang/srt/models/sample.py"
    assert finding.line
    assert "is kept as a value" in finding.message


def test_one_that_the_layers_keep(scanned, sample):
    library = {"layers/reducers.py": f'REDUCERS = {{"tp": {NAME}}}\n'}
    imports = "from sglang.srt.layers.reducers import REDUCERS\n"
    block = sample.changed(sample.block, CALL, f'{CALL}            out = REDUCERS["tp"](out)\n')
    (finding,) = not_analysed(scanned(imports, block, sample.layer, library=library))
    assert finding.file == "sglang/srt/layers/reducers.py"


def test_one_that_a_call_is_handed_is_a_step_that_is_not_exact(scanned, sample):
    block = sample.changed(sample.block, CALL, f"{CALL}            later(reduce={NAME})\n")
    result = scanned(block, sample.layer)
    assert not_analysed(result) == []
    ((step, layers),) = result.approximated
    assert (step.kind, layers) == ("sum handed to a call", ("Block",))
    assert "1 sum handed to a call" in report(result).summary


def test_a_comment_and_an_import_keep_nothing(scanned, sample):
    named = f"from sglang.srt.distributed import (\n    {NAME} as other,\n)\n# {NAME} sums\n"
    assert not_analysed(scanned(named, sample.block, sample.layer)) == []


def test_one_that_is_imported_under_another_name_is_a_site_of_its_own(scanned, sample):
    """Also where no layer reaches it: calls are found in the text."""
    head = f"from sglang.srt.distributed import {NAME} as other\n\n\n"
    unused = f"{head}class Unused:\n    def forward(self, x):\n        return other(x)\n\n\n"
    result = scanned(unused, sample.block, sample.layer)
    assert result.counts["unresolved"] == 1
    (finding,) = not_analysed(result)
    assert (finding.cls, finding.subject) == ("Unused", NAME)


@pytest.mark.parametrize("runs", ["exec(SOURCE)", "exec(open('x').read())", "BLOCK = eval(SOURCE)"])
def test_a_file_that_runs_a_text(scanned, sample, runs):
    text = f"\n\nSOURCE = {sample.block!r}\n{runs}\n\n\n"
    (finding,) = not_analysed(scanned(text, sample.block, sample.layer))
    assert "runs a text that was not read" in finding.message


def test_a_module_that_is_switched_to_evaluation_runs_none(scanned, sample):
    block = sample.changed(sample.block, CALL, f"{CALL}            self.eval()\n")
    assert not_analysed(scanned(block, sample.layer)) == []


@pytest.mark.parametrize("called", ["pick()(batch)", "ELSEWHERE['tp'](batch)"])
def test_a_call_of_what_was_worked_out_is_not_exact_whatever_it_is_handed(scanned, sample, called):
    """It may be a collective, and nothing that is owed a sum need go in to be summed."""
    block = sample.changed(sample.block, CALL, f"{CALL}            {called}\n")
    ((step, layers),) = scanned(block, sample.layer).approximated
    assert (step.kind, layers) == ("call not followed", ("Layer",))
    plain = sample.changed(sample.block, CALL, f"{CALL}            elsewhere(batch)\n")
    assert scanned(plain, sample.layer).approximated == ()
