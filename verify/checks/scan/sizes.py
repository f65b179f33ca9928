"""A name that says whose size it is, and is given another group's.

Heads are cut by what `attn_tp_size` holds, rows by what a communicator calls `tp_size`: nothing
else would say that it is not.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from verify.engines.sources import reading
from verify.interpreter.cut import Piece
from verify.interpreter.index import Index, Module
from verify.report.report import Finding

ENGINE = reading()
BOUNDARIES = PurePosixPath(ENGINE.files.boundaries).name
RULE = "group-too-narrow"
ROW = "0000"
_GIVEN = re.compile(
    r"\b_?(?P<name>attn_tp_size|moe_tp_size|(?:moe_)?ep_size|tp_size)"
    r"[ \t]*=(?!=)[ \t]*[(\s]*(?P<size>get_\w+\(\)(?:\.\w+)?|parallel\.\w+)[)\s]*(?=[,;\n#]|$)"
)
# what every such has, and what a search finds at once
_MAY_GIVE = re.compile(r"_size[ \t]*=(?!=)[(\s]*(?:get_|parallel\.)")
# a block is told under this name whose ranks its own layers are split over
ANY = "tp_size"
SPELLED = {"ep_size": "moe_ep_size"}


def misnamed_sizes(index: Index) -> Iterator[Finding]:
    """A finding for each name with another group's size, of shared code or where heads are cut."""
    shared = {duty.file for duty in index.library.duties}
    for path in sorted({*shared, *index.tree.under(index.library.models)}):
        module = index.module(path)
        if module is not None and _MAY_GIVE.search(module.text):
            for piece in module.pieces.values():
                cuts = path in shared or any(map(piece.text.__contains__, index.library.attention))
                if cuts and _MAY_GIVE.search(piece.text):
                    yield from _in(module, piece, shared=path in shared)


def _in(module: Module, piece: Piece, *, shared: bool) -> Iterator[Finding]:
    communicator, _ = module.index.library.prepares
    apart = f"{communicator}(" in module.text or BOUNDARIES in module.text
    for match in _GIVEN.finditer(piece.text):
        name, size = match["name"], _size(module.index, match["size"])
        named = SPELLED.get(name, name)
        fits = {named} if named == ANY and shared else {named, *_same(named, apart=apart)}
        cuts = shared or re.search(rf"//\s*(?:self\.)?{name}\b", piece.text)
        if size is not None and size not in fits and cuts:
            yield Finding(
                rule=RULE,
                message=f"{name} is given the size of another group, {match['size']}",
                sums="nobody: what is cut by one group is put together over another",
                fix="give it the size of the group that it names",
                subject=name,
                kind="lost",
                file=module.path,
                line=piece.text.count("\n", 0, match.start()) + piece.line,
                row=ROW,
                rows=(ROW,),
            )


def _same(named: str, *, apart: bool) -> tuple[str, ...]:
    """What else a model may mean: all ranks where it knows no smaller group of them."""
    if named == ANY:
        return ("attn_tp_size", "moe_tp_size")
    # under attention DP, for which there is a communicator, attention's ranks are not all
    return () if named == "attn_tp_size" and apart else (ANY,)


def _size(index: Index, text: str) -> str | None:
    """Which group's size an expression is, None where that is not known."""
    found = index.library.sizes.get(text.replace("parallel.", f"{ENGINE.launches.context}()."))
    found = found or index.library.sizes.get(text)
    field = text.rpartition(".")[2]
    return found or SPELLED.get(field) if "parallel" in text else found
