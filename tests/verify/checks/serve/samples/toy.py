"""A toy engine for sessions: what a rank does is said by its case."""

import base64
import os
import signal
import struct
import time


def load():
    return {"version": "1", "stand_ins": {}}


def prepare(case, folder):
    if case.get("refuse"):
        raise ValueError(case["refuse"])


def rank(prepared, case, folder, rank):
    what = case.get("ranks_do", {}).get(str(rank), "")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise RuntimeError("said by the rank")
    if what == "hang":
        time.sleep(600)
    values = base64.b64encode(struct.pack("<2f", -0.5, -1.0)).decode()
    row = {"step": "prefill", "prompt": 0, "logprobs": values}
    return {"rows": [row], "unfilled": [], "process": os.getpid()}
