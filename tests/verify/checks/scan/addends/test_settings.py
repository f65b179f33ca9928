"""What a condition asks of the environment or of the server's options is part of the launch."""

from collections.abc import Callable
from typing import Any

import pytest

Judge = Callable[..., Any]

SERVER = """
class ServerArgs:
    tp_size: int = 1
    moe_dense_tp_size: int = None
    elm: bool = False
    model_path: str = None

    def __post_init__(self):
        REFUSAL
"""
OAK = (
    "from elsewhere import kernel\n",
    """from elsewhere import kernel
from sglang.srt.layers.moe.alone import dense_alone

EntryClass = [OakForCausalLM]


class OakForCausalLM:
    def __init__(self, config):
        self.layers = make_layers(config.n, lambda index: Layer(config, index))


""",
)
SAYS = """
def dense_alone():
    return get_parallel().moe_dense_tp_size == 1
"""


def server(refusal: str) -> dict[str, str]:
    return {"server_args.py": SERVER.replace("REFUSAL", refusal), "layers/moe/alone.py": SAYS}


ENVIRON = """
class Envs:
    OAK_WHOLE = EnvBool({default})


envs = Envs()
"""


@pytest.mark.parametrize(
    ("read", "default", "shown"),
    [
        ("envs.OAK_WHOLE.get()", False, (("OAK_WHOLE=1", "--tp-size", "4"), "option")),
        ("not envs.OAK_WHOLE.get()", True, (("OAK_WHOLE=0", "--tp-size", "4"), "option")),
        ("envs.OAK_WHOLE.get()", True, (("--tp-size", "4"), "default")),
        ("not envs.OAK_WHOLE.get()", False, (("--tp-size", "4"), "default")),
        ('get_bool_env_var("OAK_WHOLE")', True, (("OAK_WHOLE=1", "--tp-size", "4"), "option")),
        ('get_bool_env_var("OAK_WHOLE", "true")', False, (("--tp-size", "4"), "default")),
        # another way comes to it without the variable
        ("envs.OAK_WHOLE.get() or config.whole", False, (("--tp-size", "4"), "default")),
    ],
)
def test_a_variable_of_the_environment_is_part_of_the_launch(
    judged: Judge, change: Any, read: str, default: bool, shown: Any
) -> None:
    added = change.before_the_sum(f"        if {read}:\n            out = out + x\n")
    environ = {"environ.py": ENVIRON.format(default=default)}
    result = judged(OAK, added, library={**change.library, **server("pass"), **environ})
    (finding,) = result.findings
    assert (finding.launch, finding.reach) == shown


BESIDE = ("--tp-size", "4", "--moe-dense-tp-size", "1")


@pytest.mark.parametrize(
    ("read", "says", "shown"),
    [
        ("dense_alone()", SAYS, (BESIDE, "option")),
        ("dense_alone()", SAYS.replace("moe_dense_tp_size", "elm_size"), (BESIDE[:2], "default")),
        ("dense_alone()", SAYS.replace("== 1", "!= 1"), (BESIDE[:2], "default")),
        ("not dense_alone()", SAYS.replace("== 1", "!= 1"), (BESIDE, "option")),
        ("not dense_alone()", SAYS, (BESIDE[:2], "default")),
        ("get_parallel().elm", "", (("--tp-size", "4", "--elm"), "option")),
        ("not get_parallel().elm", "", (BESIDE[:2], "default")),
        # another way comes to it without the option
        ("dense_alone() or config.whole", SAYS, (BESIDE[:2], "default")),
    ],
)
def test_an_option_that_a_condition_asks_for_is_part_of_the_launch(
    judged: Judge, change: Any, read: str, says: str, shown: Any
) -> None:
    added = change.before_the_sum(f"        if {read}:\n            out = out + x\n")
    library = {**change.library, **server("pass"), "layers/moe/alone.py": says}
    result = judged(OAK, added, library=library)
    (finding,) = result.findings
    assert (finding.launch, finding.reach) == shown


def test_an_option_that_a_condition_asks_for_may_be_refused(judged: Judge, change: Any) -> None:
    added = change.before_the_sum("        if dense_alone():\n            out = out + x\n")
    refusal = 'if self.moe_dense_tp_size == 1:\n            raise ValueError("not dense")'
    library = {**change.library, **server(refusal)}
    result = judged(OAK, added, library=library)
    assert not result.findings
    (refused,) = result.refused
    assert "--moe-dense-tp-size 1" in refused.refused[0]


@pytest.mark.parametrize(("read", "settled"), [("not dense_alone()", 1), ("dense_alone()", 2)])
def test_what_the_server_settles_otherwise_is_no_launch_for_it(
    judged: Judge, change: Any, read: str, settled: int
) -> None:
    """A condition that the server itself denies, whatever is asked for."""
    added = change.before_the_sum(f"        if {read}:\n            out = out + x\n")

    def scanned(sets: str) -> Any:
        library = {**change.library, **server(sets), "layers/moe/alone.py": SAYS}
        return judged(OAK, added, library=library)

    result = scanned(f"self.moe_dense_tp_size = {settled}")
    assert not result.findings
    (refused,) = result.refused
    assert "server_args.py:" in refused.refused[0]
    assert len(scanned("pass").findings) == 1
