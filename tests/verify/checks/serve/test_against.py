"""A source beside another distribution's wheel."""

import zipfile

import pytest

from verify.checks.serve.against import against, words
from verify.errors import VerifyError


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    for name, text in (("a.py", "1"), ("b.py", "2"), ("mine.py", "3"), ("x.so", "4")):
        (folder / name).write_text(text)
    return folder


def wheel(tmp_path, **files):
    path = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.py", text)
    return path


def test_each_file_is_compared_by_what_is_in_it(package, tmp_path):
    found = against(
        package, wheel(tmp_path, **{"engine/a": "1", "engine/b": "9", "engine/k": "5", "c": "6"})
    )
    assert found["same"] == 1
    assert found["differ"] == ["engine/b.py"]
    assert found["only_here"] == ["engine/mine.py"]
    assert found["only_there"] == ["engine/k.py"]
    assert words(found, engine="toy").startswith("toy: 1 Python files are those of other-1.0-")


def test_a_wheel_of_something_else_is_one_line(package, tmp_path):
    with pytest.raises(VerifyError, match=r"no engine/\*\.py in it"):
        against(package, wheel(tmp_path, **{"other/a": "1"}))
    with pytest.raises(VerifyError, match="not a wheel"):
        against(package, package / "a.py")


def test_the_report_has_it_where_it_was_asked_for(serve, tmp_path):
    other = wheel(tmp_path, **{"toyengine/__init__": "changed"})
    words = ("--model", "right", "--layout", "tp2")
    assert serve(*words) == 0
    assert "against" not in serve.report
    assert serve(*words, "--against", other) == 0
    assert serve.report["against"]["differ"] == ["toyengine/__init__.py"]
