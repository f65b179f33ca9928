"""What stands in place of torch's own: it does what torch does, faster."""

import subprocess
import sys

SCRIPT = """
import torch
from verify.emulator import machine

right = torch.nn.Module.__setattr__
machine.imitate()
assert torch.nn.Module.__setattr__ is not right

def outcome(set_attribute, steps):
    module = torch.nn.Module()
    torch.nn.Module.register_buffer(module, "kept", torch.zeros(1))
    said = []
    for name, value in steps:
        try:
            set_attribute(module, name, value)
            said.append("set")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    books = [sorted(getattr(module, book)) for book in ("_parameters", "_buffers", "_modules")]
    plain = {name for name in vars(module) if not name.startswith("_")}
    return said, books, plain, vars(module).get("count"), module.kept

weight, layer = torch.nn.Parameter(torch.zeros(2)), torch.nn.Linear(1, 1)
for steps in (
    [("count", 1), ("count", 2)],
    [("weight", weight), ("weight", None)],
    [("weight", weight), ("weight", 3)],
    [("layer", layer), ("layer", None)],
    [("layer", layer), ("layer", "no layer")],
    [("count", 1), ("count", weight)],
    [("count", 1), ("count", layer)],
    [("kept", None)],
    [("kept", 5)],
    [("loose", torch.zeros(1)), ("names", ["a"]), ("dtype", torch.float32)],
):
    assert outcome(torch.nn.Module.__setattr__, steps) == outcome(right, steps), steps
print("alike")
"""


def test_attributes_are_set_as_torch_sets_them():
    """In a process of its own: what imitates a machine stays for good."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "alike\n", done.stderr
