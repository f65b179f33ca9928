"""What the documents name of this repository is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:verify|helper|oracles|gpu_tests|tests|docs)/[\w./-]*\w)/?`")


def missing(text):
    """Paths of this repository that the text names and that are not there; ENGINE is any."""
    named = (path for path in NAMED.findall(text) if "/ENGINE/" not in path)
    return [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_that_a_document_names_exist(document):
    assert missing(document.read_text(encoding="utf-8")) == []


def test_a_misnamed_path_is_noticed():
    assert missing("`verify/errors.py`, `verify/nowhere.py` and `tests/`") == ["verify/nowhere.py"]
