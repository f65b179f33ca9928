"""Bad inputs, and what each costs: one line, the exit code of docs/design.md, no traceback.

A file that a command cannot look at, a place where there is nothing to look at, options that are
none: as somebody types them who has not read anything.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from verify.cli.command_line import RENDERERS, main
from verify.source.source import MAX_FILE_BYTES

TIME_LIMIT_S = 60


def verify(*words, cwd, environment=None, shell=""):
    """The tool as a process; `shell` is what follows the command in a shell, `>&-` say."""
    command = [sys.executable, "-m", "verify", *map(str, words)]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    path = os.pathsep.join((str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")))
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "PIP_NO_INDEX": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )


@pytest.fixture
def place(tmp_path, mini_sglang, monkeypatch):
    """A folder with the small source as `M`, an empty cache, and many things that are no source."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "place"
    folder.mkdir()
    shutil.copytree(mini_sglang, folder / "M")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def models(place):
    return place / "M" / "sglang" / "srt" / "models"


# what must be made first; the words name it
def empty_folder(place):
    (place / "empty").mkdir()


def empty_srt(place):
    (place / "empty" / "sglang" / "srt").mkdir(parents=True)


def wheel_of_nothing(place):
    with zipfile.ZipFile(place / "a.whl", "w") as archive:
        archive.writestr("sglang/srt/models/a.py", "x = 1\n")


def other_wheel(place):
    with zipfile.ZipFile(place / "a.whl", "w") as archive:
        archive.writestr("numpy/__init__.py", "")


def piece_of_a_wheel(place):
    wheel_of_nothing(place)
    whole = (place / "a.whl").read_bytes()
    (place / "a.whl").write_bytes(whole[: len(whole) // 2])


def text_file(place):
    (place / "a.txt").write_text("hello\n")


def fifo(place):
    os.mkfifo(place / "ff")


def python_file(place):
    (place / "a.py").write_text("x = 1\n")


def wheel_of_m(place, *, name="a.whl", prefix="", **others):
    """The small source as an archive, with other members."""
    with zipfile.ZipFile(place / name, "w") as archive:
        for file in sorted((place / "M").rglob("*.py")):
            archive.write(file, f"{prefix}{file.relative_to(place / 'M')}")
        for member, content in others.items():
            archive.writestr(member, content)


def flipped_bytes(place):
    wheel_of_m(place)
    with zipfile.ZipFile(place / "a.whl") as archive:
        start = archive.getinfo("sglang/srt/models/cedar.py").header_offset
    raw = bytearray((place / "a.whl").read_bytes())
    raw[start + 80 : start + 120] = bytes(byte ^ 0xFF for byte in raw[start + 80 : start + 120])
    (place / "a.whl").write_bytes(raw)


def zip_slip(place):
    wheel_of_m(place, **{"../slipped.py": "x = 1", "/slipped.py": "x = 1"})


def zip_bomb(place):
    wheel_of_m(place, **{"sglang/srt/models/bomb.py": b"#" * (MAX_FILE_BYTES + 1)})


def forge_zip(place):
    wheel_of_m(place, name="main.zip", prefix="sglang-main/python/")


def renamed_zip(place):
    wheel_of_m(place, name="sglang-0.5.98-py3-none-any.whl")


def plain_tar(place):
    with tarfile.open(place / "a.tar", "w") as archive:
        archive.add(place / "M" / "sglang", "sglang")


def shelf(place):
    """A folder that pip may look into, with two versions."""
    (place / "shelf").mkdir()
    for version in ("0.5.97", "0.5.98"):
        info = f"sglang-{version}.dist-info"
        about = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\n",
            f"{info}/RECORD": "",
        }
        wheel_of_m(place, name=f"shelf/sglang-{version}-py3-none-any.whl", **about)


def at_end_of_cedar(line):
    def made(place):
        with (models(place) / "cedar.py").open("a") as file:
            file.write(line)

    return made


broken_syntax = at_end_of_cedar("\n)(\n")
broken_syntax.__name__ = "broken_syntax"
python_2 = at_end_of_cedar("\nprint 'x'\n")
python_2.__name__ = "python_2"
nul = at_end_of_cedar("\n# \0\n")
nul.__name__ = "nul"
brackets = at_end_of_cedar(f"\nx = {'(' * 5000}{')' * 5000}\n")
brackets.__name__ = "brackets"


def other_python_2(place):
    (models(place) / "other.py").write_text("print 'tensor_model_parallel_all_reduce(x)'\n")


def newer_python(place):
    (models(place) / "other.py").write_text("type X[T] = list[T]\n")


def latin_1_declared(place):
    cedar = models(place) / "cedar.py"
    cedar.write_bytes(b"# coding: latin-1\n# caf\xe9\n" + cedar.read_bytes())


def link_to_zeros(place):
    (models(place) / "zeros.py").symlink_to("/dev/zero")


def sparse_file(place):
    with (models(place) / "sparse.py").open("wb") as file:
        file.truncate(3 << 30)


def odd_name(place):
    Path(os.fsdecode(os.fsencode(models(place)) + b"/c\xff\xfe.py")).write_text("x = 1\n")


def merge_marker(place):
    cedar = models(place) / "cedar.py"
    cedar.write_text(cedar.read_text().replace("    def forward", "<<<<<<< HEAD\n    def forward"))


def latin_1(place):
    cedar = models(place) / "cedar.py"
    cedar.write_bytes(cedar.read_bytes() + b"# caf\xe9\n")


def fifo_inside(place):
    os.mkfifo(models(place) / "pipe.py")


def loop_of_links(place):
    (models(place) / "loop").symlink_to(models(place))


def bom_and_crlf(place):
    cedar = models(place) / "cedar.py"
    cedar.write_bytes(b"\xef\xbb\xbf" + cedar.read_bytes().replace(b"\n", b"\r\n"))


def sdist(place):
    with tarfile.open(place / "sglang-0.5.99.tar.gz", "w:gz") as archive:
        archive.add(place / "M" / "sglang", "sglang-0.5.99/sglang")


def saved(place):
    """A report of another command, and files that are no report."""
    finding = {"rule": "missing-skip", "message": "", "file": "a.py"}
    wrong = {"schema_version": 2, "command": "report", "findings": [finding]}
    (place / "report.json").write_text(json.dumps(wrong))
    (place / "list.json").write_text("[]")
    (place / "null.json").write_text("null")
    (place / "object.json").write_text("{}")
    (place / "broken.json").write_text("{")
    (place / "deep.json").write_text("[" * 100_000)
    (place / "utf16.json").write_bytes("{}".encode("utf-16"))
    (place / "nan.json").write_text('{"findings": [{"rule": "a-b", "file": "x", "line": NaN}]}')
    (place / "line.json").write_text('{"findings": [{"rule": "a-b", "file": "x", "line": "22"}]}')
    (place / "future.json").write_text('{"schema_version": 99, "findings": []}')
    stale = {**wrong, "command": "scan"}
    (place / "stale.json").write_text(json.dumps(stale))


def nothing(_place):
    pass


def case(words, code, says, *, made=nothing, **environment):
    name = " ".join((words, made.__name__, *map("=".join, environment.items())))
    return pytest.param((words, code, says, made, environment), id=name)


CASES = [
    # no command, no option, no value
    case("", 2, "required: COMMAND"),
    case("reprot", 2, "invalid choice: 'reprot'"),
    case("scan", 2, "required: SOURCE"),
    case("scan M --nope", 2, "unrecognized arguments: --nope"),
    case("scan M --form json", 2, "unrecognized arguments: --form"),
    case("scan M --out x", 2, "unrecognized arguments: --out"),
    case("scan M --format xml", 2, "invalid choice: 'xml'"),
    case("scan M --also json", 2, "is not FORMAT=FILE"),
    case("scan M --fail-on error", 2, "invalid choice: 'error'"),
    case("scan M --select missing-skp", 2, "did you mean missing-skip?"),
    case("scan M --ignore not-analysed", 2, "cannot be ignored"),
    case("rule missing", 2, "did you mean missing-skip"),
    case("cache empty", 2, "invalid choice: 'empty'"),
    case("explain qwen3_moe/nope", 2, "no site 'qwen3_moe/nope'"),
    case("report --model qwen3", 2, "did you mean"),
    case("prove --max-ranks 0", 2, "choose from 1 to 256"),
    case("prove --subject= --max-ranks 2", 2, "--subject is empty"),
    case("replay M --jobs 0", 2, "at least one child process"),
    case("replay M --jobs -3", 2, "at least one child process"),
    case("prove --max-ranks -1", 2, "choose from 1 to 256"),
    case("prove --max-ranks 1000000000", 2, "choose from 1 to 256"),
    case("prove --max-ranks abc", 2, "invalid int value"),
    *(case(f"replay M --world-size {n}", 2, "--world-size") for n in ("0", "-1", "1000")),
    case("replay M --deployment foo", 2, "--deployment foo"),
    case("replay M --deployment foo=1", 2, "--deployment foo=1"),
    case("replay M --deployment =1", 2, "--deployment =1"),
    case("replay M --deployment dp_size=abc", 2, "--deployment dp_size=abc"),
    case("replay M --deployment dp_size=1,,", 2, "--deployment dp_size=1,,"),
    case("replay M --model nope", 2, "no model nope"),
    case("prove --subject zzz --max-ranks 2", 2, "zzz"),
    # what is no source
    case("scan nowhere", 2, "no such file or directory: nowhere"),
    case("scan no/where", 2, "no such file or directory: no/where"),
    case("scan mini_sglang_typo", 2, "no such file or directory: mini_sglang_typo"),
    case("scan numpy", 2, "no such file or directory: numpy"),
    case("scan numpy==1.26.4", 2, "by name only sglang"),
    case("scan vllm", 2, "by name only sglang"),
    case("replay numpy", 2, "no such file or directory: numpy"),
    case("diff M M@HEAD", 2, "git knows no such commit"),
    case("scan git+https://example.invalid/x", 2, "SOURCE is no URL"),
    case("scan https://example.invalid/x.whl", 2, "SOURCE is no URL"),
    case("scan file:///x", 2, "SOURCE is no URL"),
    case("scan ''", 2, "SOURCE is empty"),
    case("scan -- -", 2, "neither a directory, an archive nor a requirement"),
    case("scan /dev/null", 2, "neither a directory nor a regular file"),
    case("scan /dev/zero", 2, "neither a directory nor a regular file"),
    case("scan ff", 2, "neither a directory nor a regular file", made=fifo),
    case("replay ''", 2, "SOURCE is empty"),
    case("replay ff", 2, "neither a directory nor a regular file", made=fifo),
    case("serve '' --model oak --layout tp2", 2, "SOURCE is empty"),
    case("serve /dev/null --model oak --layout tp2", 2, "neither a directory nor a regular"),
    case(
        "serve a.whl --model oak --layout tp2",
        2,
        "not a wheel that can be unpacked",
        made=piece_of_a_wheel,
    ),
    case("serve nowhere --model oak --layout tp2", 2, "no such file or directory: nowhere"),
    case("serve M", 2, "say which --model"),
    case("scan a.txt", 2, "neither a directory, a wheel nor a sdist", made=text_file),
    case("scan a.whl", 2, "neither a directory, a wheel nor a sdist", made=piece_of_a_wheel),
    case("scan a.py", 2, "neither a directory, a wheel nor a sdist", made=python_file),
    case("scan M/sglang/srt/models/cedar.py", 2, "neither a directory, a wheel nor a sdist"),
    case("scan a.whl", 2, "not an archive of sglang", made=other_wheel),
    case("scan sglang==0.5.1*", 2, "nor a requirement like sglang==0.5.11"),
    case("scan sglang[all]", 2, "only a name and versions"),
    case("scan sglnag==0.5.11", 2, "by name only sglang"),
    case("scan 'sglang==0.5.11\n'", 2, "nor a requirement like sglang==0.5.11"),
    case("""scan 'sglang; python_version > "3"'""", 2, "only a name and versions"),
    case("scan sglang==", 2, "nor a requirement like sglang==0.5.11"),
    case("scan -- -r", 2, "nor a requirement like sglang==0.5.11"),
    case("scan sglang==99", 2, "pip found no wheel for sglang==99"),
    case("scan sglang==0.5.*", 2, "pip found no wheel for sglang==0.5.*"),
    case("scan sglang==0.5.11 --offline", 2, "not in the cache"),
    case("scan -- --index-url=x", 2, "nor a requirement like sglang==0.5.11"),
    # nothing to look at
    case("scan empty", 2, "expected python/sglang/srt", made=empty_folder),
    case("scan empty", 2, "nothing to look at", made=empty_srt),
    case("report --source M", 2, "nothing to look at: none of 22 sites in it"),
    case("report --source M --model llama4", 2, "nothing to look at: none of 1 site in it"),
    case("scan a.whl", 2, "nothing to look at", made=wheel_of_nothing),
    # what could not be looked at is a finding
    case("scan M", 1, "not read", made=broken_syntax),
    case("scan M", 1, "not read", made=merge_marker),
    case("scan M", 1, "not read", made=latin_1),
    case("scan M", 1, "not read", made=fifo_inside),
    case("scan M --fail-on default --select lost-sum", 1, "not read", made=latin_1),
    case("scan M", 1, "not read", made=python_2),
    case("scan M", 1, "not read", made=nul),
    case("scan M", 1, "not read", made=brackets),
    case("scan M", 1, "not read", made=other_python_2),
    case("scan M", 1, "not read", made=link_to_zeros),
    case("scan M", 1, "not read", made=sparse_file),
    case("scan a.whl", 1, "not read", made=flipped_bytes),
    case("scan a.whl", 1, "not read", made=zip_bomb),
    # odd, and read
    case("scan a.whl", 1, "2 not read", made=zip_slip),
    case("scan main.zip", 1, "1 finding", made=forge_zip),
    case("scan a.tar", 1, "1 finding", made=plain_tar),
    case("scan sglang-0.5.98-py3-none-any.whl", 1, "1 finding", made=renamed_zip),
    case("scan M", 1, "2 findings; 1 not read", made=newer_python),
    case("scan M", 1, "1 finding", made=latin_1_declared),
    case("scan M --format json", 1, "1 finding", made=odd_name),
    case("scan M", 1, "1 finding", HOME=""),
    case("scan M", 1, "1 finding", HOME="/nowhere"),
    case("scan M", 1, "1 finding", TERM="dumb", NO_COLOR="1"),
    case("scan sglang", 1, "sglang 0.5.98", made=shelf, PIP_FIND_LINKS="shelf"),
    case("scan sglang<0.5.98", 1, "sglang 0.5.97", made=shelf, PIP_FIND_LINKS="shelf"),
    case("scan sglang===0.5.97", 1, "sglang 0.5.97", made=shelf, PIP_FIND_LINKS="shelf"),
    # a cache that cannot be one
    case("scan sglang==0.5.98", 2, "cannot keep", made=shelf, XDG_CACHE_HOME="/dev/null"),
    case("scan sglang==0.5.98", 2, "cannot keep", made=shelf, XDG_CACHE_HOME="/proc"),
    case("scan M/sglang/srt", 1, "1 finding"),
    case("scan M", 1, "1 finding", made=loop_of_links),
    case("scan M", 1, "1 finding", made=bom_and_crlf),
    case("scan sglang-0.5.99.tar.gz", 1, "1 finding", made=sdist),
    # outputs, before the work
    case("scan nowhere --output /nodir/x.html", 2, "cannot write /nodir/x.html: No such file"),
    case("scan nowhere --output M", 2, "cannot write M: Is a directory"),
    case("scan nowhere --output a.txt/x", 2, "Not a directory", made=text_file),
    case("scan nowhere --output s.json --also html=s.json", 2, "two outputs would be one file"),
    case("scan nowhere --also json=-", 2, "cannot write -: "),
    case("scan nowhere --write-expect /nodir/x", 2, "cannot write /nodir/x"),
    case("scan M --output /dev/full", 2, "cannot write /dev/full: No space left"),
    # baselines
    case("scan M --expect report.json", 2, "a baseline is of one command", made=saved),
    case("scan M --expect list.json", 2, "holds no JSON object", made=saved),
    case("scan M --expect null.json", 2, "holds no JSON object", made=saved),
    case("scan M --expect object.json", 2, "'findings' is not a list", made=saved),
    case("scan M --expect broken.json", 2, "is not JSON", made=saved),
    case("scan M --expect deep.json", 2, "is not JSON", made=saved),
    case("scan M --expect utf16.json", 2, "is not JSON", made=saved),
    case("scan M --expect nan.json", 2, "NaN is no JSON", made=saved),
    case("scan M --expect line.json", 2, "'line' is str, not int", made=saved),
    case("scan M --expect future.json", 2, "schema_version 99", made=saved),
    case("scan M --expect stale.json", 1, "1 stale", made=saved),
    case("scan M --expect missing.json", 2, "cannot read missing.json"),
    case("scan M --expect M", 2, "cannot read M: Is a directory"),
    case("diff report.json M", 2, "compare reports of one command", made=saved),
]


@pytest.mark.parametrize("name", ["scan", "replay", "serve", "prove", "report", "diff", "rule"])
def test_help_holds_80_columns_and_says_formats_and_exit_codes(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    said = " ".join(out.split())
    assert all(f"{form} " in said or f"{form}," in said for form in RENDERERS)
    assert "1 findings, 2 cannot run, 3 internal error" in said


@pytest.mark.parametrize("bad", CASES)
def test_a_bad_input_is_one_line_and_its_exit_code(bad, place, capsys, monkeypatch):
    """In this process, as the command's entry point is called: a process a case is a minute."""
    words, code, says, made, environment = bad
    made(place)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        ended = main(shlex.split(words))
    except SystemExit as left:
        ended = left.code
    out, err = capsys.readouterr()
    assert (ended, says in out + err) == (code, True), err
    assert "Traceback" not in out + err
    if code == 2:
        assert out == ""
        said = [line for line in err.splitlines() if not line.startswith(" ")]
        assert len(said) == 1, err


def test_the_version_is_said(place):
    done = verify("--version", cwd=place)
    assert done.returncode == 0
    assert done.stdout.startswith("moe-allreduce-verify ")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_options(place, shell):
    done = verify("--print-completion", shell, cwd=place)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("moe-allreduce-verify", "scan", "--write-expect"))
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False)
        assert checked.returncode == 0


@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        (">&-", 2, "standard output is closed"),
        (">&- --output x", 1, "1 finding"),
        ("2>&-", 1, ""),
        ("<&-", 1, "1 finding"),
    ],
)
def test_a_closed_stream_is_said_and_no_finding(shell, code, says, place):
    done = verify("scan", "M", cwd=place, shell=shell)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C", "PYTHONIOENCODING": "ascii"},
        {"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"},
    ],
)
def test_surroundings_change_no_verdict(environment, place):
    done = verify("scan", "M", cwd=place, environment=environment)
    assert (done.returncode, "1 finding" in done.stderr) == (1, True), done.stderr
    assert "cedar.py:22" in done.stdout


def test_two_that_fetch_at_once_keep_one_file(place):
    shelf(place)
    words = [sys.executable, "-m", "verify", "scan", "sglang==0.5.98", "--format", "concise"]
    path = os.pathsep.join((str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path, "PIP_FIND_LINKS": "shelf"}
    both = [
        subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    one, other = (each.communicate(timeout=TIME_LIMIT_S)[0] for each in both)
    assert [each.returncode for each in both] == [1, 1]
    assert one == other
    kept = sorted(file.name for file in (place.parent / "cache").rglob("sglang-*"))
    assert [name.startswith("sglang-0.5.98") for name in kept] == [True, True], kept


def test_with_standard_error_closed_no_source_is_still_2(place):
    assert verify("scan", "/nope", cwd=place, shell="2>&-").returncode == 2


def test_what_a_reader_that_left_does_not_see_is_in_the_files(place):
    done = verify("scan", "M", "--also", "json=a.json", cwd=place, shell="| true")
    assert "Traceback" not in done.stderr
    assert json.loads((place / "a.json").read_text())["command"] == "scan"


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads it all")
def test_what_may_not_be_read_is_no_pass(place):
    """As another user: root may read everything."""
    drop = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [*drop, sys.executable, "-m", "verify"]
    # not in pytest's own folder, which is for its user alone
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(place / "M", Path(folder, "M"))
        (models(Path(folder)) / "cedar.py").chmod(0)
        settings = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
        able = subprocess.run([*command, "--version"], check=False, **settings)
        if able.returncode:
            pytest.skip("this Python may not be used by another user")
        done = subprocess.run(
            [*command, "scan", "M"], check=False, timeout=TIME_LIMIT_S, **settings
        )
    assert done.returncode == 1, done.stderr
    assert "not read" in done.stderr
