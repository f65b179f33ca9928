"""Cut source text into classes, functions and methods by its lines, without parsing it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# patterns for what begins a line begin with the end of the line before: the search can skip to it
_HEAD = re.compile(r"\n(?:async[ \t]+def|def|class)[ \t]+(\w+)")
# a line that begins a statement: no comment, no closing bracket
_START = r"(?=[^\s#)\]}])"
_TOP_START = re.compile(rf"\n{_START}")
_METHOD = re.compile(r"\n([ \t]+)(?:async[ \t]+)?def[ \t]")
# with nothing but names in its bases
_CLASS_HEADER = re.compile(r"class[ \t]+\w+[ \t]*(?:\([^()]*\))?[ \t]*:")
_IN_CLASS = re.compile(r"[ \t]*(?:(?P<decorator>@)|(?:async[ \t]+)?def[ \t]+(?P<name>\w+))")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a file's text and the number of its first line."""

    text: str
    line: int

    @property
    def lines(self) -> range:
        """The numbers of its lines."""
        return range(self.line, self.line + self.text.count("\n") + 1)


def definitions(text: str) -> dict[str, Piece] | None:
    """A file's top-level classes and functions.

    Each ends where the next top-level statement begins. Lines in the first column of a long string
    begin none: in front of them the triple quotes are not paired. None where its lines do not tell:
    one that looks like a definition's first is inside a string, or behind a comment with triple
    quotes.
    """
    found: dict[str, Piece] = {}
    text = f"\n{text}"
    quotes = _Quotes(text)
    line = at = end = 0
    for head in _HEAD.finditer(text):
        start = head.start()
        if start < end or not quotes.paired(start):
            return None
        starts = (match.start() for match in _TOP_START.finditer(text, head.end()))
        end = next(filter(quotes.paired, starts), len(text))
        line, at = line + text.count("\n", at, start), start
        found[head[1]] = Piece(text=text[start + 1 : end + 1], line=line + 1)
    return found


def methods(piece: Piece) -> tuple[dict[str, Piece], str] | None:
    """A class's methods with their decorators, the last of a name, and the class without them.

    None where its lines do not tell: its header is not a plain one, some lines are indented less
    than its methods, or one that looks like a method's first is inside a string, or behind a
    comment with triple quotes.
    """
    text = piece.text
    if not _CLASS_HEADER.match(text):
        return None
    indents = _METHOD.findall(text)
    if not indents:
        return {}, text
    indent = min(indents, key=len)
    if re.search(rf"\n(?!{indent})[ \t]+{_START}", text):
        return None
    quotes = _Quotes(text)
    cuts = [match.start() + 1 for match in re.finditer(rf"\n{indent}{_START}", text)]
    cuts = [*filter(quotes.paired, cuts), len(text)]
    found: dict[str, Piece] = {}
    rest = [text[: cuts[0]]]
    for begin, end, name in _statements(text, cuts):
        if name is None:
            rest.append(text[begin:end])
        else:
            line = piece.line + text.count("\n", 0, begin)
            found[name] = Piece(text=text[begin:end], line=line)
            indents.remove(indent)
    if indent in indents:
        return None
    return found, "".join([*rest, f"\n{indent}pass\n"])


def _statements(text: str, cuts: list[int]) -> Iterator[tuple[int, int, str | None]]:
    """Begin, end and, of a method, name of each statement; decorators belong to the next one."""
    begin: int | None = None
    for start, end in pairwise(cuts):
        begin = start if begin is None else begin
        head = _IN_CLASS.match(text, start)
        if head is None or not head["decorator"]:
            yield begin, end, head["name"] if head else None
            begin = None


class _Quotes:
    """Counts a text's triple quotes; asked from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.double = self.single = 0

    def paired(self, end: int) -> bool:
        """Whether every triple quote before `end` has its other one."""
        self.double += self.text.count('"""', self.at, end)
        self.single += self.text.count("'''", self.at, end)
        self.at = end
        return not (self.double % 2 or self.single % 2)
