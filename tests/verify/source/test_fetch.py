"""What is fetched, what is kept, and what is believed of the cache."""

import json
import socket
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import platformdirs
import pytest
from packaging.requirements import Requirement

from verify.cli.command_line import main
from verify.engines import sources
from verify.errors import VerifyError
from verify.source import cache, fetch
from verify.source.fetch import Policy, fetching

PIECE = "sglang-0.5.99-py3-none-any.whl"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip looks into, and nothing else; the cache is empty."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put(folder: Path, version: str, *, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"sglang-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sglang/srt/a.py", text)
        info = f"sglang-{version}.dist-info"
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A pip that does what the shell text says; `$dest` is where it should download to."""

    def install(script: str) -> None:
        program = tmp_path / "python"
        find = 'while [ "$1" != --dest ]; do shift || exit 0; done; dest="$2"\n'
        program.write_text(f"#!/bin/sh\n{find}{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(fetch.sys, "executable", str(program))

    return install


def test_a_star_is_resolved_and_not_looked_up(shelf):
    put(shelf, "0.5.1")
    assert sources.fetch("sglang==0.5.1").name == "sglang-0.5.1-py3-none-any.whl"
    put(shelf, "0.5.23")
    assert sources.fetch("sglang==0.5.*").name == "sglang-0.5.23-py3-none-any.whl"


@pytest.mark.parametrize(
    ("said", "told"),
    [("No space left on device", "no space left"), ("HASHES DO NOT MATCH", "HASHES DO NOT MATCH")],
)
def test_what_a_failed_pip_leaves_enters_no_cache(shelf, pip, said, told):
    pip(f'echo piece > "$dest/{PIECE}"; echo "ERROR: {said}" >&2; exit 2')
    with pytest.raises(VerifyError, match=told):
        sources.fetch("sglang==0.5.99")
    assert list(cache.sources().iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\3\4 a piece", "a valid wheel of something else"])
def test_a_file_in_the_cache_without_its_record_is_fetched_again(shelf, content):
    good = put(shelf, "0.5.99")
    cached = put(cache.sources(), "0.5.99", text="0 reductions here")
    if isinstance(content, bytes):
        cached.write_bytes(content)
    found = sources.fetch("sglang==0.5.99")
    assert found.read_bytes() == good.read_bytes()


def test_a_file_that_changed_since_is_fetched_again(shelf):
    good = put(shelf, "0.5.99").read_bytes()
    found = sources.fetch("sglang==0.5.99")
    found.write_bytes(good[:-1] + b"\1")
    assert not cache.is_whole(found)
    assert sources.fetch("sglang==0.5.99").read_bytes() == good


def test_refresh_asks_again_and_offline_never(shelf):
    put(shelf, "0.5.99")
    sources.fetch("sglang==0.5.99")
    new = put(shelf, "0.5.99", text="new")
    assert sources.fetch("sglang==0.5.99").read_bytes() != new.read_bytes()
    with fetching(Policy(refresh=True)):
        assert sources.fetch("sglang==0.5.99").read_bytes() == new.read_bytes()
    put(shelf, "0.5.100")
    with fetching(Policy(offline=True)):
        assert sources.fetch("sglang>=0.5").name.startswith("sglang-0.5.99-")
        with pytest.raises(VerifyError, match=r"not in the cache .*--offline"):
            sources.fetch("sglang==0.5.100")


@pytest.mark.parametrize("text", ["numpy", "numpy==1.26.4", "vllm", "mini_sglang_typo", "ff"])
def test_a_name_that_is_no_engine_s_is_never_asked_for(text, shelf, pip):
    pip("echo asked >&2; exit 1")
    with pytest.raises(VerifyError, match=f"no such file or directory: {text}"):
        sources.fetch(text)


def test_a_network_that_is_down_is_said_and_not_tried_twice(shelf, pip, tmp_path):
    pip(
        f"echo x >> {tmp_path}/calls; "
        'echo "WARNING: Retrying (Retry(total=0)) after connection broken by '
        "'NewConnectionError('<urllib3 object at 0x1>: Failed: [Errno 111] Connection refused')':"
        ' /simple/sglang/" >&2; '
        "echo 'ERROR: No matching distribution found for sglang==0.5.99' >&2; exit 1"
    )
    with pytest.raises(VerifyError, match=r"index is out of reach \(\[Errno 111\] Connection refu"):
        sources.fetch("sglang==0.5.99")
    assert (tmp_path / "calls").read_text() == "x\n"


@pytest.fixture
def index(shelf, monkeypatch):
    """Tells the real pip where its only index is."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PIP_DEFAULT_TIMEOUT", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    def at(port):
        monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{port}/simple")

    return at


def test_the_real_pip_is_understood_when_the_index_is_down(index):
    # port 9 discards where anything listens at all
    index(9)
    with pytest.raises(VerifyError, match=r"index 127.0.0.1:9 is out of reach \(\[Errno 111\]"):
        sources.fetch("sglang==0.5.99")


def test_an_index_that_accepts_and_says_nothing_is_said_soon(index):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        index(silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(VerifyError, match=r"out of reach \(no answer in time; PIP_TIMEOUT"):
            sources.fetch("sglang==0.5.99")
        # pip itself waits 15 s, twice
        assert time.monotonic() - began < 12


def trickling(stop):
    """An index that sends a byte of its answer every 0.1 s until `stop`: no read takes long."""

    class Trickles(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with suppress(OSError):
                while not stop.wait(0.1):
                    self.wfile.write(b" ")
                    self.wfile.flush()

        def log_message(self, *_):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Trickles)


def test_an_index_that_trickles_bytes_is_given_up_and_says_what_was_waited_for(index, monkeypatch):
    monkeypatch.setattr(fetch, "LISTING_S", 4)
    stop = Event()
    with trickling(stop) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        index(server.server_port)
        began = time.monotonic()
        with pytest.raises(VerifyError, match="waited 4 s for the package index, whose list of"):
            sources.fetch("sglang==0.5.99")
        took = time.monotonic() - began
        stop.set()
        server.shutdown()
    assert 3.5 < took < 10


def test_who_tells_pip_to_wait_is_waited_with(index, monkeypatch):
    monkeypatch.setattr(fetch, "LISTING_S", 1)
    monkeypatch.setenv("PIP_TIMEOUT", "2")
    stop = Event()
    with trickling(stop) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        index(server.server_port)
        with pytest.raises(VerifyError, match="waited 3 s"):
            sources.fetch("sglang==0.5.99")
        stop.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (503, r"index 127.0.0.1:\d+ answers with status 503"),
        (403, r"index 127.0.0.1:\d+ answers with status 403"),
        (404, "pip found no wheel for sglang==0.5.99: .*No matching distribution"),
    ],
)
def test_an_index_that_answers_with_an_error_is_named_with_it(index, status, told):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        index(server.server_port)
        with pytest.raises(VerifyError, match=told) as caught:
            sources.fetch("sglang==0.5.99")
        server.shutdown()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["sglang", "sglang~=0.5.1", "sglang>=0.5.1", "sglang!=0.5.0"])
def test_what_names_no_one_version_is_resolved_and_not_looked_up(shelf, text):
    put(shelf, "0.5.1")
    sources.fetch("sglang==0.5.1")
    put(shelf, "0.5.23")
    assert sources.fetch(text).name == "sglang-0.5.23-py3-none-any.whl"


@pytest.mark.parametrize("text", ["sglang==", "sglang===", "sglang~=", "sglang>=", "sglang~=0"])
def test_a_version_that_is_none_is_never_asked_for(shelf, pip, text):
    pip("echo asked >&2; exit 1")
    with pytest.raises(VerifyError, match="nor a requirement like sglang==") as caught:
        sources.fetch(text)
    assert "\n" not in str(caught.value)


def test_a_record_says_size_and_hash(shelf):
    wheel = put(shelf, "0.5.99")
    size = wheel.stat().st_size
    kept = sources.fetch("sglang==0.5.99")
    record = json.loads(kept.with_name(kept.name + cache.RECORD).read_text())
    assert record["size"] == size
    assert len(record["sha256"]) == 64


def test_an_unfinished_wheel_is_never_the_newest(shelf):
    put(cache.sources(), "0.5.99")
    assert cache.newest(Requirement("sglang")) is None


# the command -----------------------------------------------------------------------------------


def test_the_cache_says_where_it_is_and_what_it_holds(shelf, capsys, tmp_path):
    assert main(["cache", "dir"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cache'}\n"
    put(shelf, "0.5.99")
    sources.fetch("sglang==0.5.99")
    put(cache.sources(), "0.5.98")
    environment = cache.folder() / "serve" / "sglang-0.5.99"
    environment.mkdir(parents=True)
    (environment / "lock.txt").write_text("1234567")
    assert main(["cache", "list", "--format", "json"]) == 0
    entries = {one["name"]: one for one in json.loads(capsys.readouterr().out)["entries"]}
    assert entries["sglang-0.5.99-py3-none-any.whl"]["state"] == "whole"
    assert "fetched again" in entries["sglang-0.5.98-py3-none-any.whl"]["state"]
    assert entries["serve/sglang-0.5.99"]["bytes"] == 7


def test_the_cache_is_cleaned_and_an_empty_one_is_no_error(shelf, capsys):
    put(shelf, "0.5.99")
    sources.fetch("sglang==0.5.99")
    assert main(["cache", "clean"]) == 0
    assert not cache.folder().exists()
    assert main(["cache", "clean"]) == main(["cache", "list"]) == 0
    assert "0 entries" in capsys.readouterr().err
