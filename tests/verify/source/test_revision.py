"""`PATH@REV`: git objects are read, the work tree is neither read nor touched."""

import json
import shutil
import subprocess

import pytest

from verify.cli.command_line import main
from verify.engines.sources import open_source
from verify.errors import VerifyError
from verify.source.revision import provenance


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, mini_sglang, monkeypatch):
    """`main` has cedar without its doubled sum, `HEAD` with it, and the work tree is broken."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "checkout"
    shutil.copytree(mini_sglang, folder / "python")
    cedar = folder / "python" / "sglang" / "srt" / "models" / "cedar.py"
    wrong = cedar.read_text()
    cedar.write_text((cedar.parent / "oak.py").read_text().replace("Oak", "Cedar"))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "right")
    git(folder, "checkout", "-q", "-b", "change")
    cedar.write_text(wrong)
    git(folder, "commit", "-qam", "wrong")
    cedar.write_text(")(")
    return folder


def tracked(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_revision_is_the_source_it_was(checkout, mini_sglang):
    with open_source(str(mini_sglang)) as tree:
        expected = {path: tree.read(path) for path in tree.paths}
    before = tracked(checkout)
    with open_source(f"{checkout}@HEAD") as tree:
        assert {path: tree.read(path) for path in tree.paths} == expected
        assert tree.version == git(checkout, "rev-parse", "HEAD")[:12]
    assert tracked(checkout) == before


@pytest.mark.parametrize("inside", [".", "python", "python/sglang", "python/sglang/srt"])
def test_a_folder_of_the_checkout_is_looked_at_in_the_revision(checkout, inside):
    with (
        open_source(f"{checkout / inside}@main") as tree,
        open_source(f"{checkout / inside}") as folder,
    ):
        assert "sglang/srt/models/cedar.py" in tree.paths
        assert tree.paths == folder.paths


def test_a_repository_of_the_folder_alone_is_one_too(tmp_path, mini_sglang):
    folder = tmp_path / "srt"
    shutil.copytree(mini_sglang / "sglang" / "srt", folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "all")
    with open_source(f"{folder}@HEAD") as tree, open_source(str(folder)) as as_it_is:
        assert tree.paths == as_it_is.paths
        name = "sglang/srt/models/cedar.py"
        assert tree.read(name) == as_it_is.read(name)


@pytest.mark.parametrize("inside", ["", "python/sglang/srt"])
def test_where_a_checkout_comes_from_is_known(checkout, inside):
    head, main_ = git(checkout, "rev-parse", "HEAD"), git(checkout, "rev-parse", "main")
    assert provenance(str(checkout / inside)) == (checkout.as_uri(), head)
    assert provenance(f"{checkout / inside}@main") == (checkout.as_uri(), main_)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://name:token@example.org/a/b.git", "https://example.org/a/b.git"),
        ("git@example.org:a/b.git", "ssh://git@example.org/a/b.git"),
        ("ssh://git@example.org/a/b.git", "ssh://git@example.org/a/b.git"),
        ("../elsewhere", None),
    ],
)
def test_a_remote_is_an_address_without_its_password(checkout, remote, address):
    git(checkout, "remote", "add", "origin", remote)
    assert provenance(str(checkout))[0] == (address or checkout.as_uri())


def test_what_no_repository_keeps_comes_from_nowhere(checkout, tmp_path):
    ignored = checkout / "ignored" / "sglang"
    ignored.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for source in (ignored, elsewhere, elsewhere / "nothing", "sglang==0.5.11"):
        assert provenance(str(source)) is None


def test_sarif_says_which_commit_was_looked_at(checkout, capsys):
    main(["scan", f"{checkout}@main", "--format", "sarif"])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["versionControlProvenance"] == [
        {"repositoryUri": checkout.as_uri(), "revisionId": git(checkout, "rev-parse", "main")}
    ]


@pytest.mark.parametrize("inside", ["", "python", "python/sglang", "python/sglang/srt"])
def test_files_are_named_as_the_repository_does_whichever_folder_is_given(checkout, capsys, inside):
    main(["scan", f"{checkout / inside}@HEAD", "--format", "github"])
    git(checkout, "checkout", "-q", "--", ".")
    main(["scan", str(checkout / inside), "--format", "github"])
    out = capsys.readouterr().out
    assert out.count("file=python/sglang/srt/models/cedar.py") == 2


def test_a_version_that_the_revision_states_is_shown(checkout):
    (checkout / "python" / "sglang" / "version.py").write_text('__version__ = "0.5.99"\n')
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "version")
    with open_source(f"{checkout}@HEAD") as tree:
        assert tree.version.startswith("0.5.99 (")
        assert "sglang/version.py" not in tree.paths


def test_a_merge_request_is_judged_with_one_command(checkout, capsys):
    assert main(["diff", f"{checkout}@main", f"{checkout}@HEAD"]) == 1
    out, err = capsys.readouterr()
    assert "missing-skip" in out
    assert "1 new finding" in err
    assert main(["diff", f"{checkout}@HEAD", f"{checkout}@main"]) == 0


def test_files_are_named_as_the_repository_does(checkout, capsys):
    assert main(["scan", f"{checkout}@HEAD", "--format", "github"]) == 1
    assert "file=python/sglang/srt/models/cedar.py,line=22" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("nowhere", "git knows no such commit"),
        ("", "is no git revision"),
        ("--all", "is no git revision"),
        ("HEAD:python", "git knows no such commit"),
    ],
)
def test_what_is_no_revision_is_one_line(checkout, revision, message):
    with pytest.raises(VerifyError, match=message) as caught:
        open_source(f"{checkout}@{revision}")
    assert "\n" not in str(caught.value)


def test_a_revision_without_the_package_is_one_line(checkout):
    git(checkout, "rm", "-rqf", "python")
    git(checkout, "commit", "-qm", "gone")
    with pytest.raises(VerifyError, match="no sglang source in"):
        open_source(f"{checkout}@HEAD")


def test_an_object_that_is_missing_is_one_line(checkout):
    blob = git(checkout, "rev-parse", "main:python/sglang/srt/models/oak.py")
    (checkout / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(VerifyError, match=r"git cannot read .*oak.py; is the clone complete"):
        open_source(f"{checkout}@main")


def test_a_folder_that_is_no_repository_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(VerifyError, match=r"no such commit.*not a git repository"):
        open_source(f"{tmp_path}@HEAD")
