"""Only what a release's own server can be told is executed."""

import pytest

from verify.checks.replay.deployments import Execution, executable
from verify.checks.replay.offered import known_options, offered, options_of
from verify.emulator.tree import SourceFiles
from verify.engines.sources import open_source
from verify.errors import VerifyError

OLD = """
class ServerArgs:
    ep_size: int = 1
    dp_size: int = 1
    pp_size: int = 1
    enable_dp_attention: bool = False
    moe_dense_tp_size: int | None = None

    def add_cli_args(self, parser):
        moe_dp_size: int = 1
"""
BACKENDS = """
class MoeA2ABackend(Enum):
    NONE = "none"
    DEEPEP = "deepep"
"""
NEW = """
class ParallelFields:
    moe_dp_size: A[int, Arg("--moe-dp-size")] = 1
    attn_cp_size: A[int, Arg("--attn-cp-size")] = 1
    dwdp_size: A[int, Arg("--dwdp-size")] = 1
"""


@pytest.fixture
def files(tmp_path):
    """A release's argument files, as `SourceFiles`."""
    opened = []

    def write(**modules):
        for name, text in {**modules, "layers/moe/utils": BACKENDS}.items():
            path = tmp_path / "python/sglang/srt" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "python/sglang/__init__.py").touch()
        source = open_source(str(tmp_path), below="")
        opened.append(source)
        return SourceFiles(source.__enter__())

    yield write
    for source in opened:
        source.__exit__(None, None, None)


def test_an_old_release_is_not_asked_for_what_came_later(files):
    here = files(server_args=OLD)
    everything = tuple(executable(4))
    kept = offered(everything, here, source="old")
    assert 0 < len(kept) < len(everything)
    later = {"moe_dp_size", "attn_cp_size", "dwdp_size"}
    assert not any(options_of(deployment) & later for deployment in kept)
    assert {deployment.backend for deployment in kept} == {"none", "deepep"}
    dropped = set(everything) - set(kept)
    assert all(options_of(d) & later or d.backend not in ("none", "deepep") for d in dropped)


def test_fields_in_files_of_their_own_count(files):
    new = files(**{"server_args": OLD, "arg_groups/fields/parallel": NEW})
    assert {"moe_dp_size", "attn_cp_size", "dwdp_size", "ep_size"} <= known_options(new)
    everything = tuple(executable(4))
    kept = offered(everything, new, source="new")
    assert set(kept) == {d for d in everything if d.backend in ("none", "deepep")}


def test_an_option_that_is_taken_from_the_server_is_asked_for_no_more(files):
    without = files(server_args=OLD.replace("    ep_size: int = 1\n", ""))
    kept = offered(tuple(executable(4)), without, source="without")
    assert kept
    assert all(deployment.config.ep_size == 1 for deployment in kept)


def test_what_no_server_option_gives_cannot_run(files):
    asked = tuple(d for d in executable(2) if isinstance(d, Execution) and d.dwdp)
    with pytest.raises(VerifyError, match=r"^old: its server has no dwdp_size$"):
        offered(asked, files(server_args=OLD), source="old")
