"""What `replay` is told of an engine: the names under which its releases know what is executed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Names in an engine's releases; modules are dotted and below `root`, which ends in a dot.

    Modules: `models` is the folder of model files; `state` makes the groups, `attention` lays
    tokens out, `flags` computes the flags (`published`: each one's function) and lists all-to-all
    backends in the class `backends`, `communicator` answers a layer the other flags (`answered`:
    each one's method) or, in releases without it, what a part of a layer tells its block for a
    batch (`told`; None: it is no stage); `arguments` and what is in `fields` hold the server's
    options, `batch` has a forward pass's batch and what is sent between stages (`stage_output`),
    `context` what is in force while it runs, `settings` what every process is told at its start,
    with the function `sizes`; `older_settings` did so before.

    Code: what matches `experts` builds experts, `boundary` is a module that moves tensors between
    layers. `core_attention` and `linear_attention` compute no more than attention, `embedding` is
    a vocabulary; a linear layer holds its ranks under `linear_group`, a batch is prepared for what
    is called `attention_backend`. `decorator` changes nothing of what it decorates.

    `local_size` is the option by which every rank fetches all experts; `absent` are packages that
    no deployment here has.
    """

    root: str
    models: str
    state: str
    attention: str
    flags: str
    published: Mapping[str, str]
    communicator: str
    answered: Mapping[str, str]
    told: Callable[[Any, Any], dict[str, bool] | None]
    backends: str
    arguments: str
    fields: str
    batch: str
    stage_output: str
    context: str
    settings: str
    sizes: str
    older_settings: str
    experts: re.Pattern[str]
    boundary: re.Pattern[str]
    core_attention: str
    linear_attention: str
    embedding: str
    linear_group: str
    attention_backend: str
    decorator: str
    local_size: str
    absent: frozenset[str]
