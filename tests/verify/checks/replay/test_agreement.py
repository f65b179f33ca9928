"""What is executed is compared with what `prove` says of the same layer."""

from dataclasses import replace

from verify.checks.prove.subject import Subject
from verify.checks.replay.agreement import _executed_guards
from verify.checks.replay.decoders import Decoder
from verify.parallel.guards import Guards

DECODER = Decoder(
    model="oak",
    home="oak",
    file="sglang/srt/models/oak.py",
    line=1,
    cls="OakDecoderLayer",
    stacks=("OakModel",),
    layer_type=None,
    attention=(),
    boundary=True,
    model_type=None,
)


def test_of_two_layers_of_one_name_that_of_its_own_file_is_compared():
    own, other = Guards(producer="one-site", skip_tp=1), Guards(producer="one-site", skip_tp=2)
    subjects = [
        Subject(name="elm/OakBlock.forward", guards=other, layers=("OakDecoderLayer",)),
        Subject(name="oak/OakBlock.forward", guards=own, layers=("OakDecoderLayer",)),
    ]
    assert _executed_guards(DECODER, subjects) == own
    assert _executed_guards(DECODER, subjects[:1]) == other, "a block of another file"
    assert _executed_guards(replace(DECODER, cls="Elm"), subjects) is None
