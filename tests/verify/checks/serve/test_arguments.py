"""What `serve` makes of its command line before anything runs."""

import argparse

from verify.checks.serve.command import add_arguments


def test_a_patch_is_the_same_file_wherever_the_ranks_work(tmp_path, monkeypatch):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    monkeypatch.chdir(tmp_path)
    words = ["source", "--model", "m", "--layout", "tp2", "--patch", "repair.py"]
    assert parser.parse_args(words).patch == str(tmp_path / "repair.py")
