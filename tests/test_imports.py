"""The house: imports run one way, and an oracle never sees the predicate that it judges."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMAND = "from importlinter.cli import lint_imports_command as run; run()"
PACKAGES = ("helper", "oracles", "verify", "gpu_tests")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "--config", str(folder / "pyproject.toml"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


BREAKS = {
    "an oracle that asks the helper": ("oracles/llama4.py", "from helper import SKIP_REASONS"),
    "a helper that knows the tool": ("helper/reasons.py", "import verify"),
    "a tool that knows its GPU tests": ("verify/logic/truth.py", "import gpu_tests"),
    "a check that knows an engine": (
        "verify/checks/serve/run.py",
        "import verify.engines.sglang.serving",
    ),
    "a check that knows the second engine": (
        "verify/checks/serve/zygote.py",
        "import verify.engines.vllm.serving",
    ),
    "an engine that knows another": (
        "verify/engines/vllm/serving/tables.py",
        "from verify.engines.sglang.serving import layouts",
    ),
    "an engine that knows a check": (
        "verify/engines/sglang/serving/tables.py",
        "import verify.checks.serve.layout",
    ),
    "a check that knows the command line": (
        "verify/checks/prove/command.py",
        "import verify.cli.configuration",
    ),
    "an interpreter that knows an engine": (
        "verify/interpreter/named.py",
        "import verify.engines.sglang.published",
    ),
    "an emulator that knows a check": ("verify/emulator/tree.py", "import verify.checks.replay"),
    "premises that know a check": ("verify/parallel/scene.py", "import verify.checks.prove.judge"),
    "a report that knows premises": ("verify/report/causes.py", "import verify.parallel.layout"),
    "logic that knows an interpreter": ("verify/logic/truth.py", "import verify.interpreter.cut"),
    "a source that asks the engines": (
        "verify/source/fetch.py",
        "import verify.engines.registry",
    ),
    "a scan that knows an engine's words": (
        "verify/checks/scan/judge.py",
        "import verify.engines.sglang.vocabulary",
    ),
    "a proof that knows an engine's steps": (
        "verify/checks/prove/judge.py",
        "import verify.engines.sglang.steps",
    ),
    "a source that knows a check": ("verify/source/cache.py", "import verify.checks.scan"),
    "a file without a place": ("verify/odds_and_ends.py", ""),
}


@pytest.mark.parametrize(("file", "line"), BREAKS.values(), ids=BREAKS)
def test_a_contract_notices(file: str, line: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    broken = tmp_path / file
    with broken.open("a", encoding="utf-8") as appended:
        appended.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
