"""What a served engine may not do: programs, writing elsewhere, the network beyond its loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's limits and namespaces")


def caged(tmp_path, program, programs=()):
    """What `program` puts into `said` inside the cage; `network` is what the cage says."""
    whole = (
        "import json, os, resource, socket, subprocess\n"
        "from pathlib import Path\n"
        "from verify.checks.serve import cage\n"
        f"network = cage.enter(scratch=Path.cwd(), programs={programs!r})\n"
        f"{program}\nprint(json.dumps([network, said]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", whole],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_may_fork_write_below_and_talk_to_itself(tmp_path):
    program = """
Path.cwd().mkdir(exist_ok=True)
Path("below").write_text("1")
process = os.fork()
if not process:
    os._exit(7)
said = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])]
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname(), timeout=5):
        said.append("talked")
"""
    assert caged(tmp_path, program)[1] == [7, "talked"]


@pytest.mark.parametrize(
    "deed",
    [
        "Path('../above').write_text('1')",
        "subprocess.run(['true'])",
        "os.system('true')",
        "os.execv('/bin/true', ['true'])",
        "os.rename('/tmp', '/tmp2')",
    ],
)
def test_it_may_not(tmp_path, deed):
    folder = tmp_path / "scratch"
    folder.mkdir()
    program = f"try:\n    {deed}\n    said = 'did it'\nexcept PermissionError as error:\n"
    assert caged(folder, f"{program}    said = str(error)")[1].endswith("refused")
    assert not (tmp_path / "above").exists()


def test_a_program_that_the_drive_names_may_run_and_no_other(tmp_path):
    program = """
said = subprocess.run(["true"]).returncode
try:
    subprocess.run("true", shell=True)
except PermissionError as error:
    said = [said, str(error)]
"""
    said = caged(tmp_path, program, programs=("true",))[1]
    assert said[0] == 0
    assert said[1].endswith("refused")


def test_beyond_its_loopback_there_is_nothing(tmp_path):
    program = """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    try:
        it.connect(("192.0.2.1", 9))
        said = "routed"
    except OSError as error:
        said = error.errno
"""
    network, said = caged(tmp_path, program)
    if network != "loopback only":
        pytest.skip(network)
    assert said != "routed"


def test_it_has_limits(tmp_path):
    program = "said = resource.getrlimit(resource.RLIMIT_AS)[0]"
    assert 0 < caged(tmp_path, program)[1] <= 12 << 30


def test_a_source_that_writes_elsewhere_cannot_run_and_says_so(serve):
    outside = Path("/tmp/nosy")
    assert serve("--model", "good", "--model", "nosy", "--layout", "tp2") == 1
    nosy = serve.report["cases"][1]
    assert nosy["outcome"] == "cannot-run"
    assert "would write '/tmp/nosy': refused" in nosy["reason"]
    assert not outside.exists()
