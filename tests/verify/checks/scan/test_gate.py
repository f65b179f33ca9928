"""The gate is never green by accident: what was not looked at fails, in every format."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from verify.checks.scan.scan import _readable
from verify.cli import command_line
from verify.interpreter.index import UnreadableError

SAMPLE = Path(__file__).parents[3] / "samples" / "mini_sglang"


def _syntax_error(file):
    file.write_text(f"{file.read_text()}\n )(\n")


def _merge_marker(file):
    lines = file.read_text().splitlines(keepends=True)
    place = next(
        n for n, line in enumerate(lines) if "all_reduce(" in line and "import" not in line
    )
    file.write_text("".join([*lines[:place], "<<<<<<< HEAD\n", *lines[place:]]))


def _bad_bytes(file):
    file.write_bytes(file.read_bytes() + b'\n# caf\xe9\nx = "\xe9"\n')


def _too_large(file):
    file.write_text(file.read_text() + "#" * (5 << 20))


def _marker_in_the_first_column(file):
    """Between two methods: either part parses by itself."""
    text = file.read_text()
    place = text.rindex("\n    def ") + 1
    file.write_text(f"{text[:place]}<<<<<<< HEAD\n=======\n>>>>>>> other\n{text[place:]}")


def _too_deep(file):
    file.write_text(f"{file.read_text()}\nx = {'-' * 50_000}1\n")


FORMATS = sorted(command_line.RENDERERS)
DAMAGE = [
    _syntax_error,
    _merge_marker,
    _marker_in_the_first_column,
    _bad_bytes,
    _too_large,
    _too_deep,
]


@pytest.fixture
def source(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "copy"))


def _model(source):
    (file,) = source.rglob("cedar.py")
    return file


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("sarif", "junit")])
def test_a_file_that_was_not_read_fails_and_is_named(source, tmp_path, damage, name):
    damage(_model(source))
    output = tmp_path / "out"
    code = command_line.main(["scan", str(source), "-q", "--format", name, "--output", str(output)])
    assert code == 1
    text = output.read_text()
    assert "cedar.py" in text
    assert "not-analysed" in text or "not analysed" in text


@pytest.mark.parametrize("damage", DAMAGE)
def test_sarif_says_that_the_run_was_not_whole(source, tmp_path, damage):
    damage(_model(source))
    output = tmp_path / "out.sarif"
    assert (
        command_line.main(["scan", str(source), "-q", "--format", "sarif", "--output", str(output)])
        == 1
    )
    (run,) = json.loads(output.read_text())["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "cedar.py" in invocation["toolExecutionNotifications"][0]["message"]["text"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_junit_has_an_error(source, tmp_path, damage):
    damage(_model(source))
    output = tmp_path / "out.xml"
    assert (
        command_line.main(["scan", str(source), "-q", "--format", "junit", "--output", str(output)])
        == 1
    )
    root = ElementTree.parse(output).getroot()
    assert int(root.get("errors")) >= 1
    assert root.find(".//testcase/error") is not None


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_of_the_layers_that_a_model_imports(source, tmp_path, damage):
    """Read lazily, and only in part: what is damaged may be what nobody asked for."""
    (file,) = source.rglob("communicator.py")
    if damage is _merge_marker:
        damage = _marker_in_the_first_column
    damage(file)
    output = tmp_path / "out"
    words = ["scan", str(source), "-q", "--format", "json", "--output", str(output)]
    assert command_line.main(words) == 1
    found = [one for one in json.loads(output.read_text())["findings"] if one["file"]]
    assert [one["file"] for one in found if one["rule"] == "not-analysed"] == [
        "sglang/srt/layers/communicator.py"
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_may_not_be_read(source, tmp_path, monkeypatch, name):
    """As chmod 000 leaves it; root reads that too, hence the replacement."""
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "cedar.py":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    output = tmp_path / "out"
    assert (
        command_line.main(["scan", str(source), "-q", "--format", name, "--output", str(output)])
        == 1
    )
    assert "cedar.py" in output.read_text()
    assert "Permission denied" in output.read_text()


def test_a_folder_that_may_not_be_entered(source, tmp_path, monkeypatch):
    listed = os.scandir

    def refuse(path):
        if str(path).endswith("layers"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    output = tmp_path / "out"
    assert command_line.main(["scan", str(source), "-q", "--output", str(output)]) == 1
    assert "sglang/srt/layers" in output.read_text()


def test_a_tree_of_which_nothing_can_be_read_cannot_run(source, capsys, monkeypatch):
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if source in self.parents:
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert command_line.main(["scan", str(source)]) == 2
    error = capsys.readouterr().err
    assert "nothing to look at" in error
    assert "Permission denied" in error


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", [["prove", "--max-ranks", "2"], ["report"]])
def test_the_other_readers_of_a_source(source, tmp_path, damage, command):
    damage(_model(source))
    output = tmp_path / "out"
    words = [*command, "--source", str(source), "-q", "--format", "json", "--output", str(output)]
    assert command_line.main(words) == 1
    findings = json.loads(output.read_text())["findings"]
    assert "cedar.py" in {
        (one["file"] or "").rpartition("/")[2] for one in findings if one["rule"] == "not-analysed"
    }


def test_a_whole_run_says_so(tmp_path):
    output = tmp_path / "out.sarif"
    command_line.main(["scan", str(SAMPLE), "-q", "--format", "sarif", "--output", str(output)])
    (run,) = json.loads(output.read_text())["runs"]
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


def test_one_number_is_called_finding(capsys):
    """The summary has the findings' number once; a reduction that has one is wrong."""
    assert command_line.main(["scan", str(SAMPLE), "--format", "concise"]) == 1
    said = capsys.readouterr().err
    assert "1 covered, 1 guarded wrongly," in said
    assert re.findall(r"(\d+) findings?\b", said) == ["1"]


def test_accepted_only_by_a_baseline(source, tmp_path):
    """And what was not looked at only with a reason, which nobody but the reader can write."""
    _merge_marker(_model(source))
    baseline = tmp_path / "accepted.json"
    words = ["scan", str(source), "-q", "--output", str(tmp_path / "x")]
    command_line.main([*words, "--write-expect", str(baseline)])
    assert command_line.main([*words, "--expect", str(baseline)]) == 1
    assert "stale" not in (tmp_path / "x").read_text()
    _give_reasons(baseline)
    assert command_line.main([*words, "--expect", str(baseline)]) == 0


def _give_reasons(baseline):
    saved = json.loads(baseline.read_text())
    for entry in saved["findings"]:
        entry["reason"] = "read by hand"
    baseline.write_text(json.dumps(saved))


NOBODY_CALLS = """

def finish(hidden_states):
    return tensor_model_parallel_all_reduce(hidden_states)
"""


@pytest.mark.parametrize("name", FORMATS)
def test_a_reduction_that_no_layer_reaches_is_not_analysed(source, tmp_path, name):
    model = _model(source)
    model.write_text(model.read_text() + NOBODY_CALLS)
    output = tmp_path / "out"
    words = ["scan", str(source), "-q", "--format", name, "--output", str(output)]
    assert command_line.main(words) == 1
    text = output.read_text()
    assert "not-analysed" in text or "not analysed" in text
    assert "no known layer reaches it" in " ".join(re.sub("[│|]", "", text).split())


def test_one_more_such_reduction_is_not_hidden_by_a_baseline(source, tmp_path):
    model = _model(source)
    model.write_text(model.read_text() + NOBODY_CALLS)
    baseline = tmp_path / "accepted.json"
    words = ["scan", str(source), "-q", "--output", str(tmp_path / "x")]
    command_line.main([*words, "--write-expect", str(baseline)])
    _give_reasons(baseline)
    assert command_line.main([*words, "--expect", str(baseline)]) == 0
    once = "tensor_model_parallel_all_reduce(hidden_states)"
    twice = f"return tensor_model_parallel_all_reduce({once})"
    model.write_text(model.read_text().replace(f"return {once}", twice))
    assert command_line.main([*words, "--expect", str(baseline)]) == 1


SERVER_FILES = {
    "server_args.py": (
        "from sglang.srt.arg_groups.fields.parallel import Parallel\n"
        "from sglang.srt.arg_groups.hook import check\n\n\n"
        "class ServerArgs(Parallel):\n"
        "    model_path: str = None\n\n"
        "    def __post_init__(self):\n"
        "        check(self)\n"
    ),
    "arg_groups/fields/parallel.py": (
        "class Parallel:\n    tp_size: int = 1\n    dp_size: int = 1\n"
    ),
    "environ.py": "class Envs:\n    pass\n",
    "configs/cedar.py": "class CedarConfig:\n    pass\n",
    "layers/moe/token_dispatcher/one.py": "class OneDispatcher:\n    pass\n",
    "arg_groups/hook.py": "def check(args):\n    assert args.dp_size <= args.tp_size\n",
}


@pytest.mark.parametrize("damaged", SERVER_FILES)
@pytest.mark.parametrize("whole", [False, True], ids=["appended to", "replaced"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_from_which_refusals_are_read(source, tmp_path, damaged, whole, name):
    """What it refuses is not known, so that launches could be right or wrong by accident."""
    model = _model(source)
    # a finding, so that somebody asks for launches
    model.write_text(model.read_text().replace("            or use_reduce_scatter\n", ""))
    for path, text in SERVER_FILES.items():
        file = source / "sglang/srt" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((text if path != damaged or not whole else "") + ")(\n" * (path == damaged))
    output = tmp_path / "out"
    words = ["scan", str(source), "-q", "--format", name, "--output", str(output)]
    assert command_line.main(words) == 1
    text = output.read_text()
    assert "not-analysed" in text or "not analysed" in text
    assert damaged.rpartition("/")[2] in text


def test_two_sources_of_which_one_has_such_a_file(source, tmp_path):
    for path, text in SERVER_FILES.items():
        file = source / "sglang/srt" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    other = shutil.copytree(source, tmp_path / "other")
    words = ["-q", "--output", str(tmp_path / "x")]
    assert command_line.main(["diff", str(source), str(other), *words]) == 0
    (other / "sglang/srt/arg_groups/fields/parallel.py").write_text(")(\n")
    assert command_line.main(["diff", str(source), str(other), *words]) == 1


def _empty(folder):
    (folder / "sglang" / "srt").mkdir(parents=True)
    return folder


def _without_layers(folder):
    wheel = folder / "sglang-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/srt/models/a.py", "x = 1\n")
    return wheel


def _one_block(folder):
    """A reduction and no layer that could call it."""
    file = folder / "sglang/srt/models/cedar.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from sglang.srt.distributed import tensor_model_parallel_all_reduce\n\n\n"
        "class Block:\n"
        "    def forward(self, hidden_states):\n"
        "        if SOMETHING(hidden_states):\n"
        "            hidden_states = tensor_model_parallel_all_reduce(hidden_states)\n"
        "        return hidden_states\n"
    )
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_no_layers_are_nothing_to_look_at(tmp_path, capsys, name):
    assert command_line.main(["scan", str(_one_block(tmp_path)), "--format", name]) == 2
    captured = capsys.readouterr()
    assert "nothing to look at: 0 layers, 1 reduction" in captured.err
    assert not captured.out


def test_no_layers_are_nothing_to_compare(tmp_path, capsys):
    made = str(_one_block(tmp_path))
    assert command_line.main(["diff", made, made]) == 2
    assert "nothing to look at" in capsys.readouterr().err


@pytest.mark.parametrize("nothing", [_empty, _without_layers])
@pytest.mark.parametrize("command", [["scan"], ["report", "--source"]])
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_to_look_at_cannot_run(tmp_path, capsys, nothing, command, name):
    assert command_line.main([*command, str(nothing(tmp_path)), "--format", name]) == 2
    captured = capsys.readouterr()
    assert "nothing to look at" in captured.err
    assert not captured.out


def test_a_launch_that_asks_a_file_that_is_not_python_is_not_worked_out():
    def judged(one):
        raise UnreadableError("cedar.py:1: not Python")

    assert _readable(judged)(None) is None
