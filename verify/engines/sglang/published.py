"""Where SGLang's releases can be read, and how another command is told of one."""

import re

REPOSITORY = "https://github.com/sgl-project/sglang"
RELEASE = re.compile(r"\d+\.\d+\.\d+(?:\.?(?:post|rc)\d+)?")


def web(version: str) -> str:
    """The address of a release's files at its tag, with a final slash; empty for anything else."""
    return f"{REPOSITORY}/blob/v{version}/python/" if RELEASE.fullmatch(version) else ""


def requirement(version: str) -> str:
    """`sglang==0.5.23` for a release; empty for anything else."""
    return f"sglang=={version}" if RELEASE.fullmatch(version) else ""
