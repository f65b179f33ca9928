"""Options with nothing to act on: what looks for experts in a model's layers, and raises without.

The files are told by the option's own name; where none looks, nothing is refused.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from verify.checks.scan.server.arguments import Options, Refusal
from verify.engines.sources import reading
from verify.interpreter.index import Class, Index

ENGINE = reading()
EXPERT_LAYERS = ENGINE.structure.expert_layers
_LOOKS = re.compile(rf"\.modules\(\)\s+if isinstance\(\w+, (?:{'|'.join(EXPERT_LAYERS)})\)")
_WORDS = (*(f"{name}(" for name in EXPERT_LAYERS), ENGINE.structure.expert_factory)
_OWN_CALL = re.compile(r"\bself\.(\w+)\(")
_CAPITALISED = re.compile(r"\b[A-Z]\w*")
_QUALIFIED = re.compile(r"\b(\w+)\.([A-Z]\w*)\(")
_LOWER_CALL = re.compile(r"(?<![\w.])[a-z_]\w*(?=\()")
_WITHOUT = re.compile(r"\n[ \t]+if not \w+:\n[ \t]+(?=raise )")


@dataclass(eq=False)
class Idle:
    """The options of one source that look for experts."""

    index: Index
    _experts: dict[Class, bool] = field(default_factory=dict)
    _refusals: dict[str, Refusal | None] = field(default_factory=dict)

    def nothing_to_act_on(self, layer: Class, asked: Options, defaults: Options) -> Refusal | None:
        """Where an option that is asked for ends a launch, because the layer builds no experts."""
        if layer not in self._experts:
            self._experts[layer] = _builds_experts(layer)
        if self._experts[layer]:
            return None
        for option, value in asked.items():
            if value != defaults.get(option):
                found = self._raises(option.removesuffix("_size"))
                if found is not None:
                    return found
        return None

    def _raises(self, word: str) -> Refusal | None:
        if word not in self._refusals:
            self._refusals[word] = _raises(self.index, word)
        return self._refusals[word]


def _raises(index: Index, word: str) -> Refusal | None:
    for path in index.tree.under(ENGINE.library.layers):
        if not re.search(rf"(?:^|[/_]){word}(?:[/_.]|$)", path):
            continue
        module = index.module(path)
        match = _WITHOUT.search(module.text) if module else None
        if module is not None and match and _LOOKS.search(module.text):
            return Refusal(file=path, line=module.text.count("\n", 0, match.end()) + 1)
    return None


def _builds_experts(layer: Class) -> bool:
    """Whether a layer's constructor comes to expert layers, by what it names and calls."""
    todo: list[tuple[Class, Class | None, str]] = [(layer, None, "__init__")]
    seen: set[tuple[Class, Class | None, str]] = set()
    while todo:
        one = todo.pop()
        own, after, name = one
        method = own.method(name, after=after)
        if one in seen or method is None or method.owner is None:
            continue
        seen.add(one)
        text = method.owner.methods.pieces[name].text
        if any(word in text for word in _WORDS):
            return True
        if f"super().{name}(" in text:
            todo.append((own, method.owner, name))
        own_calls, qualified, plain = _names(text)
        todo += [(own, None, called) for called in own_calls]
        for owner, named in qualified:
            found = method.module.qualified(owner, named)
            if isinstance(found, Class):
                todo.append((found, None, "__init__"))
        for named in plain:
            found = method.module.resolve(named)
            if isinstance(found, Class):
                todo.append((found, None, "__init__"))
            elif found is not None and any(w in found.module.pieces[named].text for w in _WORDS):
                return True
    return False


@lru_cache(maxsize=4096)
def _names(text: str) -> tuple[list[str], list[tuple[str, str]], set[str]]:
    """A method's own methods that it calls, classes of other files, and what may be its file's."""
    plain = {*_CAPITALISED.findall(text), *_LOWER_CALL.findall(text)}
    return _OWN_CALL.findall(text), _QUALIFIED.findall(text), plain
