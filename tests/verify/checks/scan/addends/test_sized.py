"""Sizes that the server sets by itself, and models that are only built to draft for another one."""

from collections.abc import Callable
from typing import Any

import pytest

Judge = Callable[..., Any]
MODEL = ("from elsewhere import kernel\n", "from elsewhere import kernel\n\nEntryClass = [Oak]\n")
OAK = """

class Oak:
    def __init__(self, config):
        self.layers = make_layers(config.n, lambda index: Layer(config, index))
"""
SERVER = """
class ServerArgs:
    tp_size: int = 1
    dp_size: int = 1
    ep_size: int = 1
    enable_dp_attention: bool = False
    moe_a2a_backend: str = "none"
    chunk: int = None
    speculative_algorithm: str = None

    def __post_init__(self):
        if self.chunk is None:
            memory = get_memory()
            if memory < 20:
                self.chunk = 2048
            elif memory < 40:
                self.chunk = 4096
            else:
                self.chunk = 8192
        if elsewhere(self):
            self.chunk = -1
        REFUSAL
"""
LIMIT = """if self.moe_a2a_backend == "nixl" and self.chunk > 0:
            assert self.chunk <= 128, "too many\""""
DRAFTED = """if self.moe_a2a_backend == "nixl":
            assert self.speculative_algorithm is None, "not beside another model\""""
DRAFTS = """
def configure(config, draft):
    if draft and config.architectures[0] == "Elm":
        config.architectures[0] = "Oak"
"""


FORGETS = ("            or get_moe_a2a_backend().is_nixl()\n", "")


def judge(judged: Judge, refusal: str, **files: str) -> Any:
    """A shared expert that knows one backend of two, the other of which a server may refuse."""
    server = {"server_args.py": SERVER.replace("REFUSAL", refusal), **files}
    return judged((MODEL[0], MODEL[1] + OAK), FORGETS, library=server)


def launches(result: Any) -> list[str]:
    return [" ".join(finding.launch) for finding in result.findings]


def test_a_launch_has_the_size_that_the_server_takes(judged: Judge) -> None:
    result = judge(judged, LIMIT)
    assert launches(result) == ["--tp-size 4 --moe-a2a-backend nixl --chunk 128"]
    ((line,),) = (finding.refused for finding in result.findings)
    assert line.startswith("sglang/srt/server_args.py:")
    assert line.endswith(": --tp-size 4 --moe-a2a-backend nixl")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # deleted, or one that some machine's own size keeps to
        ("assert self.chunk <= 128", "pass  # "),
        ("<= 128", "<= 2048"),
        ("self.chunk > 0", "self.chunk > 0 and elsewhere()"),
    ],
)
def test_a_size_of_the_servers_own_is_left_alone(judged: Judge, old: str, new: str) -> None:
    assert old in LIMIT
    result = judge(judged, LIMIT.replace(old, new))
    assert launches(result) == ["--tp-size 4 --moe-a2a-backend nixl"]


def test_a_model_that_only_drafts_is_started_beside_another(judged: Judge) -> None:
    alone = judge(judged, DRAFTED)
    assert launches(alone) == ["--tp-size 4 --moe-a2a-backend nixl"]
    beside = judge(judged, DRAFTED, **{"configs/model_config.py": DRAFTS})
    assert beside.rules == []
    ((line, *_),) = (refused.refused for refused in beside.refused)
    assert line.startswith("sglang/srt/server_args.py:")
    taken = judge(judged, "pass", **{"configs/model_config.py": DRAFTS})
    assert launches(taken) == launches(alone)
