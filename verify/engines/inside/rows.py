"""Which rows of the whole batch a rank may hold in a table, by the number of rows of the table.

Standard library only.
"""

from collections.abc import Iterator, Sequence

PADDING = -1
Map = tuple[int, ...]
"""A rank's row -> the row of the one rank, or `PADDING`."""


def own(lengths: Sequence[int], prompts: Sequence[int]) -> Map:
    """The rows of some prompts; the one rank holds those of all prompts one after another."""
    starts = [sum(lengths[:prompt]) for prompt in range(len(lengths))]
    return tuple(starts[prompt] + row for prompt in prompts for row in range(lengths[prompt]))


def maps(
    count: int, *, lengths: Sequence[int], shares: Sequence[Sequence[int]], group: int, ranks: int
) -> list[Map]:
    """What a table of `count` rows may hold on a rank of `group`, likelier ones first.

    Its group's rows; all groups' rows, each group's padded to a multiple or to the largest group;
    or an equal piece of one of these, as ranks that share rows hold.
    """
    mine = own(lengths, shares[group])
    wholes = [mine]
    parts = [own(lengths, prompts) for prompts in shares]
    for multiple in (1, 2, 4):
        padded = [_pad(part, -(-len(part) // multiple) * multiple) for part in parts]
        longest = max(len(part) for part in padded)
        wholes.append(tuple(row for part in padded for row in part))
        wholes.append(tuple(row for part in padded for row in _pad(part, longest)))
    found = [_pad(whole, count) for whole in wholes if len(whole) <= count]
    for whole in wholes:
        found += _pieces(whole, count, ranks)
    # a table of padding alone says nothing
    return [each for each in dict.fromkeys(found) if set(each) != {PADDING}]


def others(
    count: int, *, lengths: Sequence[int], shares: Sequence[Sequence[int]], group: int
) -> list[Map]:
    """The rows of the other groups, where they fit."""
    parts = [own(lengths, prompts) for number, prompts in enumerate(shares) if number != group]
    return [_pad(part, count) for part in parts if len(part) <= count]


def _pad(part: Map, count: int) -> Map:
    return (*part, *(PADDING for _ in range(count - len(part))))


def _pieces(whole: Map, count: int, ranks: int) -> Iterator[Map]:
    for pieces in range(2, ranks + 1):
        if count * (pieces - 1) < len(whole) <= count * pieces:
            padded = _pad(whole, count * pieces)
            for piece in range(pieces):
                yield padded[piece * count : (piece + 1) * count]
