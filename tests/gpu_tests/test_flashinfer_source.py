"""What this package calls in flashinfer exists in the releases that the results are of.

Reads their source without importing it: the functions and the names of their arguments.
"""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gpu_tests.kernels

RELEASES = ("0.6.7.post3", "0.6.15.post1", "0.7.0.post1")

pytestmark = pytest.mark.network


@pytest.fixture(scope="module", params=RELEASES)
def wheel(tmp_path_factory, request):
    folder, wanted = tmp_path_factory.mktemp("flashinfer"), f"flashinfer-python=={request.param}"
    words = ("download", "-q", "--no-deps", "-d", str(folder))
    subprocess.run([sys.executable, "-m", "pip", *words, wanted], check=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def arguments_of(wheel, file, name):
    """The argument names of a function in one of the release's files."""
    tree = ast.parse(wheel.read(file))
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return {argument.arg for argument in function.args.args + function.args.kwonlyargs}


def exported_by(wheel, file):
    """Every name that a package's `__init__` brings in."""
    tree = ast.parse(wheel.read(file))
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def keywords_of_calls(name):
    """The keywords with which gpu_tests.kernels calls `name`."""
    tree = ast.parse(Path(gpu_tests.kernels.__file__).read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and name in (getattr(node.func, "id", None), getattr(node.func, "attr", None))
    ]
    assert calls
    return {keyword.arg for call in calls for keyword in call.keywords}


# how the call is written here, the function, its package and the module it is defined in
CALLS = (
    ("fused", "cutlass_fused_moe", "fused_moe", "core"),
    ("allreduce_fusion", "allreduce_fusion", "comm", "allreduce"),
    (*["create_allreduce_fusion_workspace"] * 2, "comm", "allreduce"),
)


@pytest.mark.parametrize(("called", "function", "package", "module"), CALLS)
def test_functions_and_arguments_exist(wheel, called, function, package, module):
    assert function in exported_by(wheel, f"flashinfer/{package}/__init__.py")
    used = keywords_of_calls(called)
    assert used
    assert used <= arguments_of(wheel, f"flashinfer/{package}/{module}.py", function)


def test_the_fusion_pattern_exists(wheel):
    assert "AllReduceFusionPattern" in exported_by(wheel, "flashinfer/comm/__init__.py")
    assert b"kARResidualRMSNorm = " in wheel.read("flashinfer/comm/trtllm_ar.py")


def test_a_misnamed_argument_would_be_noticed(wheel):
    known = arguments_of(wheel, "flashinfer/fused_moe/core.py", "cutlass_fused_moe")
    assert "token_selected_expert" not in known
