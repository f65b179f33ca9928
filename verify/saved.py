"""Reports saved as JSON, read back: for baselines and comparisons."""

import json
from collections.abc import Mapping
from pathlib import Path

from verify.errors import VerifyError
from verify.report import SCHEMA_VERSION, Json

MAX_BYTES = 64 * 1024 * 1024


def load(path: Path) -> Mapping[str, Json]:
    """The JSON object in the file. Raises `VerifyError` for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise VerifyError(f"{path}: larger than {MAX_BYTES >> 20} MiB, not a saved report")
        report = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise VerifyError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VerifyError(
            f"{path} is not JSON ({error}); save a report with --format json"
        ) from error
    if not isinstance(report, dict):
        raise VerifyError(f"{path} is not a saved report: it holds no JSON object")
    version = report.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise VerifyError(
            f"{path} has schema_version {version!r}; this version reads {SCHEMA_VERSION}"
        )
    return report


def findings_of(report: Mapping[str, Json], path: Path) -> tuple[Mapping[str, Json], ...]:
    """The report's findings as JSON objects."""
    return _objects(report, "findings", path)


def sites_of(report: Mapping[str, Json], path: Path) -> tuple[Mapping[str, Json], ...]:
    """The report's sites as JSON objects; none where the command has no sites."""
    return _objects({"sites": [], **report}, "sites", path)


def _objects(report: Mapping[str, Json], key: str, path: Path) -> tuple[Mapping[str, Json], ...]:
    entries = report.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise VerifyError(f"{path} is not a saved report: {key!r} is not a list of objects")
    return tuple(entries)
