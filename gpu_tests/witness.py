"""What counts a rank's values: columns beside them that every collective moves and adds too.

On the way into an MLP it is one column with the token's id, on the way out one column for every
(token, rank, family) whose partial sum could have been added. The counts are so measured on the
very operations that produce the values, and integers come out exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FAMILIES = ("routed", "shared")


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Marks for `tokens` tokens of `ranks` ranks; without tokens there are no columns."""

    tokens: int
    ranks: int

    def marks(self, ids: Tensor, family: str, *, rank: int, dtype: torch.dtype) -> Tensor:
        """[rows, counts]: a one where `rank`'s partial of `family` of the row's token is.

        `ids` are token ids; a row of padding has none.
        """
        columns = self.tokens * self.ranks * len(FAMILIES)
        marks = torch.zeros(len(ids), columns, dtype=dtype, device=ids.device)
        if not columns:
            return marks
        offset = FAMILIES.index(family) * self.tokens * self.ranks
        column = offset + (ids - 1) * self.ranks + rank
        real = (ids > 0).unsqueeze(1)
        return marks.scatter(1, column.clamp(min=0).unsqueeze(1), real.to(dtype))
