"""The runtime configuration the predicates read, set for a scope.

Upstream keeps these values in module globals (`layers/moe/utils.py`, `layers/dp_attention.py`);
here a context variable holds them, so that threads and async tasks do not see each other's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

A2A_BACKENDS = (
    "none",
    "deepep",
    "mooncake",
    "nixl",
    "mori",
    "ascend_fuseep",
    "flashinfer",
    "customized",
)
RUNNER_BACKENDS = (
    "auto",
    "deep_gemm",
    "triton",
    "triton_kernel",
    "flashinfer_trtllm",
    "flashinfer_trtllm_routed",
    "flashinfer_cutlass",
    "flashinfer_mxfp4",
    "flashinfer_cutedsl",
    "cutlass",
    "marlin",
    "aiter",
)

# of these the server sets ep_size to tp_size (`server_args.py`, `_handle_a2a_moe`)
FULL_EP_BACKENDS = frozenset(A2A_BACKENDS) - {"none", "customized"}
# of these it demands ep_size 1 or tp_size (`server_args.py`, `_handle_moe_kernel_config`)
WHOLE_OR_NO_EP_RUNNERS = frozenset({"flashinfer_cutlass", "flashinfer_cutedsl"})


class ConfigError(ValueError):
    """A configuration that no server could run with; the message says which value and why."""


class NoConfigError(LookupError):
    """A predicate was asked outside every `use_config` scope."""


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """Sizes are ranks: `tp_size` is the whole world, the others divide it.

    `attn_dp_size` is the number of attention data-parallel groups (1 without attention DP);
    `attn_cp_size` of context-parallel ranks in each. Names are 0.5.11's server arguments.
    Raises `ConfigError` for sizes or names that cannot be.
    """

    tp_size: int = 1
    ep_size: int = 1
    moe_dp_size: int = 1
    attn_dp_size: int = 1
    attn_cp_size: int = 1
    enable_dp_attention: bool = False
    moe_a2a_backend: str = "none"
    moe_runner_backend: str = "auto"
    quantization: str | None = None
    disable_flashinfer_cutlass_moe_fp4_allgather: bool = False

    def __post_init__(self) -> None:
        for name in ("tp_size", "ep_size", "moe_dp_size", "attn_dp_size", "attn_cp_size"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ConfigError(f"{name}={size!r}: a size is a whole number of at least 1")
        self._require_known("moe_a2a_backend", self.moe_a2a_backend, A2A_BACKENDS)
        self._require_known("moe_runner_backend", self.moe_runner_backend, RUNNER_BACKENDS)
        self._check_experts()
        self._check_attention()

    def _check_experts(self) -> None:
        self._require_divides("ep_size * moe_dp_size", self.ep_size * self.moe_dp_size)
        if self.ep_size > 1 and self.moe_dp_size > 1 and self.moe_tp_size > 1:
            raise ConfigError(
                f"ep_size={self.ep_size} with moe_dp_size={self.moe_dp_size}: "
                f"where both exceed 1 their product must be tp_size={self.tp_size}"
            )
        if self.moe_a2a_backend in FULL_EP_BACKENDS and self.ep_size != self.tp_size:
            raise ConfigError(
                f"ep_size={self.ep_size} with moe_a2a_backend={self.moe_a2a_backend!r}: "
                f"the server sets ep_size to tp_size={self.tp_size} then"
            )
        if self.moe_runner_backend in WHOLE_OR_NO_EP_RUNNERS and self.ep_size not in (
            1,
            self.tp_size,
        ):
            raise ConfigError(
                f"ep_size={self.ep_size} with moe_runner_backend={self.moe_runner_backend!r}: "
                f"ep_size must be 1 or tp_size={self.tp_size} then"
            )

    def _check_attention(self) -> None:
        self._require_divides("attn_dp_size * attn_cp_size", self.attn_dp_size * self.attn_cp_size)
        if self.enable_dp_attention != (self.attn_dp_size > 1):
            raise ConfigError(
                f"attn_dp_size={self.attn_dp_size} with "
                f"enable_dp_attention={self.enable_dp_attention}: "
                "attention has several data-parallel groups exactly when it is enabled"
            )
        if self.moe_dp_size not in (1, self.attn_cp_size):
            raise ConfigError(
                f"moe_dp_size={self.moe_dp_size} with attn_cp_size={self.attn_cp_size}: "
                "moe_dp_size must be 1 or attn_cp_size"
            )

    def _require_divides(self, what: str, size: int) -> None:
        if self.tp_size % size:
            raise ConfigError(f"{what}={size} does not divide tp_size={self.tp_size}")

    def _require_known(self, what: str, value: str, known: tuple[str, ...]) -> None:
        if value not in known:
            raise ConfigError(f"{what}={value!r} is unknown; one of: {', '.join(known)}")

    @property
    def moe_tp_size(self) -> int:
        """Ranks that share one expert's intermediate dimension."""
        return self.tp_size // self.ep_size // self.moe_dp_size

    @property
    def attn_tp_size(self) -> int:
        """Ranks that share one attention data-parallel group's heads."""
        return self.tp_size // self.attn_dp_size // self.attn_cp_size


@dataclass(frozen=True, eq=False)
class _Scope:
    config: MoeConfig


_SCOPES: ContextVar[tuple[_Scope, ...]] = ContextVar("moe_config_scopes", default=())


def current_config() -> MoeConfig:
    """The innermost configuration in scope; raises `NoConfigError` when there is none."""
    scopes = _SCOPES.get()
    if not scopes:
        raise NoConfigError(
            "no MoE configuration is set: wrap the call in `with use_config(MoeConfig(...)):`"
        )
    return scopes[-1].config


@contextmanager
def use_config(config: MoeConfig) -> Iterator[MoeConfig]:
    """Set `config` for the block, in this thread or async task and in tasks started from it.

    Scopes may be left in any order: the innermost one still open is in force.
    """
    scope = _Scope(config)
    _SCOPES.set((*_SCOPES.get(), scope))
    try:
        yield config
    finally:
        _SCOPES.set(tuple(other for other in _SCOPES.get() if other is not scope))
