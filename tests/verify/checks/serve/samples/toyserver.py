"""Serves the toy engine: how a case ends is said by its model's name."""

import base64
import struct
import time
from pathlib import Path


class RefusedError(Exception):
    pass


def load():
    return {"version": "1", "stand_ins": {"none": "is needed"}, "torch": "0"}


def prepare(case, folder):
    if "write" in case:
        Path(case["into"]).mkdir()
        return
    model = Path(case["model"]).name
    if model.startswith("refused") and case["ranks"] > 1:
        raise RefusedError("no such launch")
    if model.startswith("nosy"):
        Path("/tmp/nosy").write_text("outside")
    if model.startswith("missing") and case["ranks"] > 1:
        raise NotImplementedError("a kernel")


def rank(prepared, case, folder, rank):
    model = Path(case["model"]).name
    if model.startswith("slow"):
        time.sleep(600)
    wrong = 1.0 if model.startswith("wrong") and case["ranks"] > 1 else 0.0
    packed = struct.pack("<2f", -0.5 - case["probe"] - wrong, -1.0)
    row = {"step": "prefill", "prompt": 0, "logprobs": base64.b64encode(packed).decode()}
    return {"rows": [row], "unfilled": []}
