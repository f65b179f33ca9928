"""Told to end, by SIGTERM or SIGHUP: no process and no folder is left, whatever was going on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import psutil
import pytest

from verify.cli import command_line
from verify.report.ending import EndedError, ending_by_signal

ROOT = Path(__file__).parents[3]
SMALL_SERVER = ROOT / "tests" / "verify" / "checks" / "replay" / "samples" / "small_server"
START_S = 60.0
END_S = 10.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ends with its parent on Linux")


@pytest.fixture(autouse=True)
def heard():
    """Who starts the tests may ignore a hangup (nohup) or an interrupt (a shell's background job):
    what they start must hear it.
    """
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    kept = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@contextmanager
def started(tmp_path, *words, module="verify", program="", **environment):
    """The command, or a module with this program; a temporary folder and a cache of its own."""
    if program:
        (tmp_path / f"{module}.py").write_text(program)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "TMPDIR": str(scratch),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        for one in [*children(process), process]:
            one.kill()
        process.communicate(timeout=END_S)


def children(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(what, *, seconds=START_S):
    """The first true answer."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        answer = what()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def alive(processes):
    return [one for one in processes if one.is_running() and one.status() != "zombie"]


def ends(process, number, family):
    """Sends the signal; the process ends by it, and soon there is nobody of its family."""
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=END_S)
    assert process.returncode == -number, err
    assert "Traceback" not in err
    wait_for(lambda: not alive(family), seconds=END_S)
    return out


# two workers that never come to an end, over the pool that prove has
POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, util
from verify.report.ending import ending_by_signal, starting_children

def work(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(600)

if __name__ == "__main__":
    with ending_by_signal(), ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(work, sys.argv[1:] * 2))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_workers_that_would_work_for_ever(tmp_path, number):
    told = tmp_path / "told"
    told.mkdir()
    with started(tmp_path, told, module="pool_of_two", program=POOL) as process:
        wait_for(lambda: len(list(told.iterdir())) == 2)
        ends(process, number, children(process))


def test_a_signal_while_a_worker_starts_waits_for_it(tmp_path):
    """As a hangup comes between the worker's start and the first that it is told."""
    program = (
        "import os, sys, signal; from multiprocessing import util; real = util.spawnv_passfds\n"
        "def start(*words):\n"
        "    number = real(*words)\n"
        "    if 'spawn_main' in str(words): os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return number\n"
        "util.spawnv_passfds = start\n"
        "from verify.cli.command_line import main\n"
        "if __name__ == '__main__': sys.exit(main(['prove', '--max-ranks', '64']))\n"
    )
    with started(tmp_path, module="hung_up", program=program) as process:
        _, err = process.communicate(timeout=START_S)
        assert process.returncode == -signal.SIGHUP
        assert "Traceback" not in err


INTERRUPTED = {
    "while it is loaded": (
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'verify.cli.command_line': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "runpy.run_module('verify', run_name='__main__', alter_sys=True)\n"
    ),
    "while text is executed": (
        "from verify.cli import command_line\n"
        "loop = 'os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass'\n"
        "command_line._run = lambda _: exec(loop)\n"
        "sys.exit(command_line.main(['prove']))\n"
    ),
    "while a worker starts": (
        "from multiprocessing import util; real = util.spawnv_passfds\n"
        "def start(*words):\n"
        "    number = real(*words)\n"
        "    if 'spawn_main' in str(words):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        for _ in range(50): os.kill(number, signal.SIGINT); time.sleep(0.01)\n"
        "    return number\n"
        "util.spawnv_passfds = start\n"
        "from verify.cli.command_line import main\n"
        # which takes minutes
        "if __name__ == '__main__': sys.exit(main(['prove', '--max-ranks', '256']))\n"
    ),
}


@pytest.mark.parametrize("program", INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupt_is_one_line_and_2(tmp_path, program):
    program = f"import os, runpy, signal, sys, time\n{program}"
    with started(tmp_path, module="interrupts", program=program) as process:
        _, err = process.communicate(timeout=START_S)
        assert (process.returncode, err) == (2, "verify: interrupted\n")


def busy(family):
    """Whether two of these processes do more than start, whichever number the system gave them."""
    return sum(one.cpu_times().user > 0.3 for one in family) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_prove_ends_with_its_workers(tmp_path, number):
    with started(tmp_path, "prove", "--max-ranks", "64") as process:
        family = wait_for(lambda: f if busy(f := children(process)) else None)
        ends(process, number, family)


@pytest.mark.slow
def test_prove_killed_outright_leaves_no_worker(tmp_path):
    with started(tmp_path, "prove", "--max-ranks", "64") as process:
        family = wait_for(lambda: f if busy(f := children(process)) else None)
        process.kill()
        process.communicate(timeout=END_S)
        wait_for(lambda: not alive(family), seconds=END_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_replay_ends_with_its_children_and_folders(tmp_path, number):
    with started(tmp_path, "replay", SMALL_SERVER, "--jobs", "2") as process:
        scratch = tmp_path / "scratch"
        family = wait_for(lambda: f if busy(f := children(process)) else None)
        assert list(scratch.iterdir())
        ends(process, number, family)
        # nobody can tidy up who is killed
        assert number == signal.SIGKILL or not list(scratch.iterdir())


def test_a_child_that_is_told_nothing_more_ends_with_a_replay(tmp_path):
    """A stopped one does not see that nobody is left to read its answers."""
    with started(tmp_path, "replay", SMALL_SERVER, "--jobs", "2") as process:
        family = wait_for(lambda: f if busy(f := children(process)) else None)
        for one in family:
            one.suspend()
        process.kill()
        process.communicate(timeout=END_S)
        wait_for(lambda: not alive(family), seconds=END_S)


def test_a_worker_that_is_told_nothing_more_ends_with_prove(tmp_path):
    program = (
        "import os, sys, time; from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context; from verify.checks.prove import lattice\n"
        "if __name__ == '__main__':\n"
        "    settings = ((), lattice.LEDGER.release, lattice.LEDGER.steps)\n"
        "    with ProcessPoolExecutor(1, get_context('spawn'), lattice._start_worker, settings)"
        " as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True); time.sleep(600)\n"
    )
    with started(tmp_path, module="one_worker", program=program) as process:
        worker = psutil.Process(int(process.stdout.readline()))
        worker.suspend()
        process.kill()
        process.communicate(timeout=END_S)
        wait_for(lambda: not alive([worker]), seconds=END_S)


def test_a_worker_whose_parent_is_gone_before_it_can_say_so_ends(tmp_path):
    program = (
        "import os, sys, time; from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context; from pathlib import Path\n"
        "from verify.report.ending import end_with_parent\n"
        "def late(folder):\n"
        "    Path(folder, 'started').touch(); parent = os.getppid()\n"
        "    while os.getppid() == parent: time.sleep(0.01)\n"
        "    end_with_parent(); Path(folder, 'stayed').touch(); time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, get_context('spawn')) as pool:\n"
        "        pool.submit(late, sys.argv[1]).result()\n"
    )
    with started(tmp_path, tmp_path, module="late", program=program) as process:
        wait_for((tmp_path / "started").exists)
        family = children(process)
        process.kill()
        process.communicate(timeout=END_S)
        wait_for(lambda: not alive(family), seconds=END_S)
    assert not (tmp_path / "stayed").exists()


def test_a_thread_of_who_is_told_to_end_says_nothing(tmp_path):
    """As a pool's own, whose tasks were taken back while its processes went."""
    program = (
        "import os, signal, threading, time; from verify.report.ending import ending_by_signal\n"
        "told = threading.Event()\n"
        "def complains(): told.wait(); raise RuntimeError('of a task')\n"
        "thread = threading.Thread(target=complains); thread.start()\n"
        "with ending_by_signal():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "    finally: told.set(); thread.join()\n"
    )
    with started(tmp_path, module="complains", program=program) as process:
        _, err = process.communicate(timeout=START_S)
        assert (process.returncode, err) == (-signal.SIGTERM, "")


@pytest.mark.parametrize("told", [EndedError(signal.SIGTERM), KeyboardInterrupt()])
def test_a_replay_that_is_ended_says_what_it_has_done(tmp_path, monkeypatch, capsys, told):
    pytest.importorskip("torch")
    from verify.checks.replay import overview  # noqa: PLC0415 (needs torch)

    real = overview.run_cases

    def interrupted(*args, **options):
        yield from islice(real(*args, **options), 3)
        raise told

    monkeypatch.setattr(overview, "run_cases", interrupted)
    saved = tmp_path / "saved.json"
    with pytest.raises(type(told)):
        command_line._main(["replay", str(SMALL_SERVER), "--jobs", "1", "--also", f"json={saved}"])
    report = json.loads(saved.read_text())
    assert len(report["cases"]) == 3
    (missed,) = [one for one in report["findings"] if one["rule"] == "not-analysed"]
    assert missed["message"] == "stopped after 3 of 34 cases: nothing is known of the others"
    out, err = capsys.readouterr()
    assert "Deployments by outcome" in out
    assert err.startswith("stopped after 3 of 34 cases; ")


def test_serve_ends_with_its_engine_and_folders(tmp_path):
    engine = tmp_path / "python"
    engine.write_text("#!/bin/sh\nsleep 600 & wait\n")
    engine.chmod(0o755)
    package = tmp_path / "source" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    words = ["serve", tmp_path / "source", "--python", engine, "--model", "qwen3_moe"]
    with started(tmp_path, *words, "--layout", "tp2") as process:
        family = wait_for(lambda: f if len(f := children(process)) == 2 else None)
        assert list((tmp_path / "scratch").iterdir())
        ends(process, signal.SIGTERM, family)
        assert not list((tmp_path / "scratch").iterdir())


def test_a_download_ends_with_its_pip_and_piece(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        index = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        with started(
            tmp_path,
            *("scan", "sglang==0.5.99"),
            PIP_CONFIG_FILE="/dev/null",
            PIP_INDEX_URL=index,
            PIP_EXTRA_INDEX_URL="",
            PIP_FIND_LINKS="",
        ) as process:
            server.settimeout(START_S)
            server.accept()
            family = children(process)
            assert family
            ends(process, signal.SIGTERM, family)
            assert not list((tmp_path / "cache" / "moe-allreduce-verify" / "sources").iterdir())


@pytest.mark.ranks
def test_gpu_tests_end_with_their_ranks(tmp_path):
    with started(tmp_path, "--world-size", "2", module="gpu_tests") as process:
        family = wait_for(lambda: f if busy(f := children(process)) else None)
        ends(process, signal.SIGTERM, family)
        assert not list((tmp_path / "scratch").iterdir())


def test_a_hangup_that_was_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_by_signal():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back():
    with ending_by_signal():
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
