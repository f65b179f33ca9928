"""Which rows some configuration can produce: asked of the predicates themselves.

The flags read from the configuration are evaluated on every legal `MoeConfig` of up to `WORLD`
ranks; the flags that forward() receives are taken as free, so the rows named unreachable are
those that the configuration alone rules out. `verify prove` knows more about the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

from helper import ConfigError, MoeConfig, use_config
from verify.logic.flags import flag_names, skip_reasons

# every comparison in the predicates is between sizes of 1, 2 and the whole: 4 ranks show all
WORLD = 4
SIZES: Mapping[str, tuple[object, ...]] = {
    "tp_size": (1, 2, WORLD),
    "ep_size": (1, 2, WORLD),
    "moe_dp_size": (1, 2, WORLD),
    "attn_dp_size": (1, 2, WORLD),
    "attn_cp_size": (1, 2, WORLD),
}
OPTIONS: Mapping[str, tuple[object, ...]] = {
    "moe_a2a_backend": ("none", "deepep"),
    "moe_runner_backend": ("auto", "flashinfer_cutlass"),
    "quantization": (None, "modelopt_fp4"),
    "disable_flashinfer_cutlass_moe_fp4_allgather": (False, True),
}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """`witness` maps each producible setting of the configuration's flags to the smallest
    configuration that produces it; `tried` counts configurations.
    """

    flags: tuple[str, ...]
    witness: Mapping[tuple[bool, ...], MoeConfig]
    tried: int

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The rows whose configuration flags some configuration produces, ascending."""
        names = flag_names()
        positions = [len(names) - 1 - names.index(flag) for flag in self.flags]
        return tuple(
            row
            for row in range(1 << len(names))
            if tuple(bool(row >> position & 1) for position in positions) in self.witness
        )


def reach() -> Reach:
    """Evaluate the configuration's flags on every configuration."""
    configured = [reason for reason in skip_reasons() if reason.value is not None]
    witness: dict[tuple[bool, ...], MoeConfig] = {}
    tried = 0
    for config in configurations():
        with use_config(config):
            values = tuple(reason.value() for reason in configured if reason.value is not None)
        witness.setdefault(values, config)
        tried += 1
    return Reach(flags=tuple(reason.flag for reason in configured), witness=witness, tried=tried)


@lru_cache(maxsize=1)
def configurations() -> tuple[MoeConfig, ...]:
    """Every legal configuration of up to `WORLD` ranks, the smallest world first."""
    return tuple(
        config for sizes in _legal(MoeConfig(), SIZES) for config in _legal(sizes, OPTIONS)
    )


def _legal(config: MoeConfig, choices: Mapping[str, tuple[object, ...]]) -> Iterator[MoeConfig]:
    for values in product(*choices.values()):
        changed: dict[str, Any] = dict(zip(choices, values, strict=True))
        changed["enable_dp_attention"] = changed.get("attn_dp_size", config.attn_dp_size) > 1
        try:
            yield replace(config, **changed)
        except ConfigError:
            continue


def in_words(config: MoeConfig) -> str:
    """What differs from the default configuration, `tp_size=2 ep_size=2`."""
    return " ".join(
        f"{field.name}={getattr(config, field.name)}"
        for field in fields(config)
        if getattr(config, field.name) != field.default
    )
