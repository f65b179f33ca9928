"""Which code is mutated, on which models and layouts it is judged, and how many are drawn."""

import re
from dataclasses import dataclass
from pathlib import Path

MODELS = ("glm4_moe", "qwen3_moe", "deepseek_v2", "minimax_m2", "qwen2_moe", "bailing_moe")
LAYOUTS = ("tp2.dp2.ep2", "tp2", "tp2.ep2", "tp2.dp2", "tp2.dp2.dense1")
# a model with dense layers, shared experts and a layer boundary, and one without the first two
SHARED_JUDGES = {
    "glm4_moe": ("tp2.dp2.ep2", "tp2.ep2", "tp2.dp2.dense1", "tp4.dp2", "tp2", "tp2.dp2"),
    "qwen3_moe": ("tp2.dp2.ep2", "tp2"),
}

ROOT = "sglang/srt"
SHARED = (
    f"{ROOT}/layers/communicator.py",
    f"{ROOT}/layers/moe/utils.py",
    f"{ROOT}/layers/dp_attention.py",
    f"{ROOT}/layers/layer_boundary/*.py",
)
# what loads weights, and what only another platform runs
SKIPPED = re.compile(r"load_weights|weight_loader|dual_stream|npu|aiter|_cp_|Nextn|NextN")
# a condition is decision code where it speaks of groups, sums, rows or stages
WORDS = re.compile(
    r"tp_size|ep_size|dp_size|world_size|reduce|fusion|scatter|a2a|defer|sum|group|complete|sparse|"
    r"terminal|padd|attn_tp|SCATTERED|FULL|move|partial|exit|owes|last_layer|gather|layout|dense|"
    r"shared_output|dp_attention"
)


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Mutants of one release: of one model's file, or (`shared`) of what models share.

    `quota` is how many are drawn; `judges` are the models and layouts that they are judged on.
    """

    name: str
    quota: int
    globs: tuple[str, ...]
    judges: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def kind(self) -> str:
        """`model` or `shared`."""
        return "shared" if self.name == "shared" else "model"

    def files(self, release: Path) -> list[str]:
        """The files of a release that it mutates."""
        found = (path for each in self.globs for path in sorted(release.glob(each)))
        return [path.relative_to(release).as_posix() for path in found]


STRATA = {
    "shared": Stratum(name="shared", quota=60, globs=SHARED, judges=tuple(SHARED_JUDGES.items())),
    **{
        name: Stratum(
            name=name,
            quota=8,
            globs=(f"{ROOT}/models/{name}.py",),
            judges=((name, LAYOUTS),),
        )
        for name in MODELS
    },
}
