"""Attributes that only a base's constructor sets, in a class that never calls it.

Such a program stops when the attribute is read. What is judged is what it means to do: the
attribute is taken as the base's constructor would have set it.
"""

import ast

from verify.interpreter.index import Class
from verify.interpreter.machine import Machine
from verify.interpreter.state import Frame
from verify.interpreter.values import Instance, Value
from verify.logic.diagrams import TRUE


class SkippedMachine(Machine):
    """Runs method bodies; reads what a skipped constructor would have set."""

    def _instance_attribute(self, owner: Instance, name: str) -> Value:
        known = name in owner.attributes or owner.cls.method(name) is not None
        if not known and not any(name in cls.assigned for cls in owner.cls.ancestors):
            for base in owner.cls.ancestors[1:]:
                value = _set_in_constructor(base, name)
                if value is not None:
                    return self._as_set(base, value, owner)
        return super()._instance_attribute(owner, name)

    def _as_set(self, base: Class, value: ast.expr, owner: Instance) -> Value:
        frame = Frame(base.module, "__init__", base, TRUE)
        frame.env["self"] = owner
        self.state.enter(frame)
        try:
            return self.evaluate(value)
        finally:
            self.state.leave()


def _set_in_constructor(cls: Class, name: str) -> ast.expr | None:
    """What the constructor sets `self.name` to, where it is set once and nowhere else."""
    if cls.text.count(f"self.{name} = ") != 1 or "__init__" not in cls.methods:
        return None
    for node in ast.walk(cls.methods["__init__"]):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == f"self.{name}":
            return node.value
    return None
