"""One post-experts reduction as it was before the migration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Site:
    """Read from the source at `commit`, transcribed by hand, never computed.

    `guard` is a Python expression over the flag names AF, RS, DP and FI; the block reduced where
    it was true. `size_gate` is the attribute that had to exceed 1 besides, `size_world` the group
    whose size it holds. `accepts` are the flags that the surrounding forward() receives;
    `passes` maps each keyword of the migrated call, `is_tp_path` aside, to the flag it carries.
    `category` is the pull request's; `category_inferred` where its text does not define it.
    `lines` are the first and the last line of the guard in `file`.
    """

    model: str
    cls: str
    method: str
    path: Literal["EP", "TP"]
    collective: str
    size_gate: str
    size_world: Literal["tp", "moe_tp", "moe_ep"]
    guard: str
    accepts: tuple[str, ...]
    passes: Mapping[str, str]
    category: Literal["A", "B", "C", "D-EP", "D-TP"]
    category_inferred: bool
    lines: tuple[int, int]
    repository: str = "sgl-project/sglang"
    commit: str = "da175b964d150e6e24dade4a0ba7992d98921380"

    @property
    def block(self) -> str:
        """`model/Class.method`: the sites of one method share it."""
        return f"{self.model}/{self.cls}.{self.method}"

    @property
    def id(self) -> str:
        """`model/Class.method/PATH`, unique."""
        return f"{self.block}/{self.path}"

    @property
    def file(self) -> str:
        """The model's file at `commit`, relative to the folder that holds `sglang/`."""
        return f"sglang/srt/models/{self.model}.py"
