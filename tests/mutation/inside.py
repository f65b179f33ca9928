"""Run in each rank before the model loads, with `JOB` set: applies a mutant, or records lines.

`JOB` has `out`, a folder to write to, and `file` and `text` (the mutated file), or `trace`, files.
Every mutation is inside a function, so that it is enough to give the functions that the engine
has made already the code of the mutated ones.
"""

import gc
import json
import os
import sys
import types

JOB = globals()["JOB"]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["sglang"].__file__)))


def say(name, value):
    with open(os.path.join(JOB["out"], f"{name}.{os.getpid()}.json"), "w") as stream:
        json.dump(value, stream)


def codes(code, found):
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            found.setdefault((each.co_qualname, each.co_firstlineno), each)
            codes(each, found)
    return found


def swap(path, text):
    with open(path, encoding="utf-8") as stream:
        old = codes(compile(stream.read(), path, "exec"), {})
    new = codes(compile(text, path, "exec"), {})
    changed = {key for key, code in new.items() if key in old and old[key] != code}
    swapped, missed = 0, []
    # what the engine had imported before its ranks were made is out of the collector's sight
    gc.unfreeze()
    for each in gc.get_objects():
        if type(each) is not types.FunctionType or each.__code__.co_filename != path:
            continue
        key = (each.__code__.co_qualname, each.__code__.co_firstlineno)
        if key not in changed:
            continue
        if new[key].co_freevars == each.__code__.co_freevars:
            each.__code__ = new[key]
            swapped += 1
        else:
            missed.append(key[0])
    return {"changed": sorted(name for name, _ in changed), "swapped": swapped, "missed": missed}


def trace(files):
    seen = set()
    stream = open(os.path.join(JOB["out"], f"lines.{os.getpid()}"), "w", buffering=1)  # noqa: SIM115 (until the rank ends)
    paths = {os.path.join(ROOT, file): file for file in files}

    def line(frame, event, _argument):
        if event == "line":
            place = (paths[frame.f_code.co_filename], frame.f_lineno)
            if place not in seen:
                seen.add(place)
                stream.write(f"{place[0]}:{place[1]}\n")
        return line

    sys.settrace(lambda frame, _event, _: line if frame.f_code.co_filename in paths else None)


if "trace" in JOB:
    trace(JOB["trace"])
else:
    say("swap", swap(os.path.join(ROOT, JOB["file"]), JOB["text"]))
