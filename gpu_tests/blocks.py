"""What is run: every block with a migrated site, and the dense MLP that has the same consumers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from oracles import SITES, Site


@dataclass(frozen=True, kw_only=True)
class DenseSite:
    """The reduction at the end of a dense MLP, in the words of an oracle's `Site`.

    It was never migrated: it asks no helper, whoever decides for the other blocks.
    """

    block: str
    guard: str
    accepts: tuple[str, ...]
    path: Literal["TP"] = "TP"
    size_world: Literal["tp"] = "tp"

    @property
    def id(self) -> str:
        """`model/Class.method/PATH`."""
        return f"{self.block}/{self.path}"


# models/deepseek_v2.py (0.5.11): its down_proj reduces unless told skip_all_reduce
DENSE = DenseSite(
    block="deepseek_v2/DeepseekV2MLP.forward", guard="not (AF or RS)", accepts=("AF", "RS")
)

ALL_SITES: tuple[Site | DenseSite, ...] = (*SITES, DENSE)


def subjects(models: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`model/Class.method` of every block that is run, each once; of some `models` only."""
    names = dict.fromkeys(site.block for site in ALL_SITES)
    return tuple(name for name in names if not models or name.partition("/")[0] in models)


@lru_cache
def sites_of(subject: str) -> tuple[Site | DenseSite, ...]:
    """The reductions of `model/Class.method` in the order it carries them out: EP before TP."""
    return tuple(site for site in ALL_SITES if site.block == subject)
