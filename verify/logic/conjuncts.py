"""A guard as a person wants to read it: a few of its conditions, not all of them.

The full text of a release's guard, everything that is not a flag included, runs to thousands of
characters; JSON has it whole.
"""

import re

MORE = "..."
_TOKEN = re.compile(r"[()\[\]]| and | or | if ")


def conjuncts(guard: str) -> tuple[str, ...]:
    """The conditions that hold together; the whole guard where it is no plain conjunction."""
    depth, start, parts = 0, 0, []
    for token in _TOKEN.finditer(guard):
        if token[0] in "([":
            depth += 1
        elif token[0] in ")]":
            depth -= 1
        elif depth == 0 and token[0] == " and ":
            parts.append(guard[start : token.start()])
            start = token.end()
        elif depth == 0:
            return (guard,)
    return (*parts, guard[start:])


def shortened(guard: str, *, width: int) -> str:
    """As many leading conditions as fit `width` characters, and `...` for the others."""
    return _joined(conjuncts(guard), width=width)


def difference(old: str, new: str, *, width: int) -> tuple[str, str]:
    """The conditions of each that the other lacks, shortened; `...` for those that both have."""
    before, after = conjuncts(old), conjuncts(new)
    return _only(before, after, width=width), _only(after, before, width=width)


def _only(mine: tuple[str, ...], theirs: tuple[str, ...], *, width: int) -> str:
    own = tuple(part for part in mine if part not in theirs)
    shared = len(own) < len(mine)
    text = _joined(own, width=width)
    return f"{MORE} and {text}" if shared and own else text or MORE


def _joined(parts: tuple[str, ...], *, width: int) -> str:
    text = ""
    for part in parts:
        longer = f"{text} and {part}" if text else part
        if len(longer) > width:
            return f"{text} and {MORE}" if text else f"{longer[: width - len(MORE)]}{MORE}"
        text = longer
    return text
