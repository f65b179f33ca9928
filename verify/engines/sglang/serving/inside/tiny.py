"""Tiny configurations of every MoE architecture in a release's model registry.

Runs inside the engine's Python: standard library, transformers and sglang only.
Nothing here lists the models. Which classes build experts is read from their source, and a
configuration comes from the class that the engine or transformers has for it, or, where there is
none, from the attributes that the model file reads. What a family needs beyond that is an entry
of `tiny_families`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import sys
import types
from pathlib import Path
from typing import Any

from verify.engines.sglang.serving.inside.tiny_families import ABSENT, ENTRIES, LAYERS, SIZES, Entry

_MODELS = "sglang.srt.models"
_CONFIGS = ("config", "hf_config", "text_config", "hf_text_config", "configuration")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reads:
    """Attributes that model files read from their configuration."""

    required: frozenset[str]
    optional: frozenset[str]


def architectures() -> dict[str, str]:
    """Every architecture of the registry whose class builds experts -> its file's name."""
    return {name: _file(cls) for name, cls in sorted(_registry().items()) if _builds_experts(cls)}


def write(model: str, folder: Path) -> None:
    """Write ``folder/config.json``, a tiny configuration of `model`.

    `model` is an architecture or the name of a model file, of which the first MoE
    class for causal language modelling is taken. Raises LookupError for a model that
    the release has not, ValueError (naming the attributes) for one whose
    configuration cannot be made.
    """
    architecture = _architecture(model)
    cls = _registry()[architecture]
    entry = _entry(architecture, _file(cls))
    config = _configuration(architecture, cls, entry)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=1, sort_keys=True, default=str)
    (folder / "config.json").write_text(text + "\n")
    register(folder)


def register(folder: Path) -> None:
    """Make transformers accept the ``model_type`` in `folder`, if nobody knows it.

    Such a model's repository on the hub ships its configuration class; every
    attribute that the engine reads stands in our config.json instead.
    """
    transformers = importlib.import_module("transformers")
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    if _known_class(kind) is None:
        generic = type(f"Tiny_{kind}", (transformers.PretrainedConfig,), {"model_type": kind})
        # where pickle looks: on GPUs rank 0 reads the launch and hands on what it read
        globals()[generic.__name__] = generic
        transformers.AutoConfig.register(kind, generic, exist_ok=True)


def reads(cls: type) -> Reads:
    """What the model files of `cls` and of its base classes read from ``config``."""
    required: set[str] = set()
    optional: set[str] = set()
    for base in _reachable(cls):
        for node in ast.walk(_tree(base)):
            if isinstance(node, ast.Attribute) and _is_config(node.value):
                if isinstance(node.ctx, ast.Load):
                    required.add(node.attr)
            elif _is_read(node):
                optional.add(node.args[1].value)  # type: ignore[attr-defined]
    methods = {"to_dict", "get", "update", "get_text_config", "__class__"}
    return Reads(required=frozenset(required - methods), optional=frozenset(optional))


def _configuration(architecture: str, cls: type, entry: Entry) -> dict[str, Any]:
    transformers = importlib.import_module("transformers")
    known = _config_class(architecture, cls, entry)
    wanted = reads(cls)
    names = wanted.required | wanted.optional
    if known is None:
        config = {key: value for key, value in SIZES.items() if key in names or key in _ALWAYS}
        config |= entry.values
        config["model_type"] = entry.model_type or _file(cls)
        there: Any = transformers.PretrainedConfig()
    else:
        default = known().to_dict()
        values = {key: value for key, value in SIZES.items() if key in {*names, *default, *_ALWAYS}}
        if "head_dim" not in default:
            # Fewer than ranks, and SGLang pads the heads, on CPU only (configs/update_config.py).
            values["num_key_value_heads"] = 4
        values |= _per_layer(default, cls)
        values = {key: value for key, value in values.items() if not _read_only(known, key)}
        values |= entry.values
        values |= {name: _part(known, name, own) for name, own in entry.parts.items()}
        for name in ("rope_scaling", "rope_theta"):  # they would erase rope_parameters
            if "rope_parameters" in default and name not in entry.values:
                values.pop(name, None)
        try:
            config = known(**values).to_dict()
        except Exception as error:
            raise ValueError(f"{architecture}: {known.__name__} refused: {error}") from error
        config |= {key: value for key, value in values.items() if key not in config}
        config["model_type"] = known.model_type
        there = known(**values)
    absent = sorted(
        name
        for name in wanted.required - wanted.optional
        if name not in config and not hasattr(there, name) and not name.startswith("_")
    )
    config |= {name: ABSENT.get(name, SIZES.get(name)) for name in absent}
    if "rope_parameters" in names and config.get("rope_parameters") is None:
        config["rope_parameters"] = ABSENT["rope_parameters"]  # transformers sets None at first
    if config.get("rope_parameters") and config.get("rope_scaling", 0) is None:
        del config["rope_scaling"]  # read after rope_parameters, None would erase them
    config["tiny_absent"] = absent  # the class has them not: the hub's file does
    config = {key: value for key, value in config.items() if key not in entry.drop}
    config |= entry.after
    config["architectures"] = [architecture]
    config["tiny_attention"] = entry.attention
    config["dtype"] = config["torch_dtype"] = SIZES["dtype"]
    return config


def _part(known: Any, name: str, own: dict[str, Any]) -> dict[str, Any]:
    """The configuration `name` within one of class `known`, in the sizes that it has."""
    default = known.sub_configs[name]().to_dict()
    return {key: SIZES[key] for key in SIZES if key in {*default, "dtype"}} | own


_ALWAYS = {
    key: SIZES[key]
    for key in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "max_position_embeddings",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    )
}


def _read_only(known: Any, name: str) -> bool:
    """Whether `known` computes the attribute from others, and refuses to be told."""
    attribute = getattr(known, name, None)
    return isinstance(attribute, property) and attribute.fset is None


def _per_layer(default: dict[str, Any], cls: type) -> dict[str, Any]:
    """Lists with one value a layer, shortened so that every kind of layer remains.

    A family whose default has one kind only, but whose file knows a sliding window or
    a dense layer as well, gets that too.
    """
    count = default.get("num_hidden_layers")
    spoken = {
        node.value
        for base in _reachable(cls)
        for node in ast.walk(_tree(base))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found: dict[str, Any] = {}
    for key, value in default.items():
        if not (isinstance(value, list) and count and len(value) == count > LAYERS):
            continue
        kinds = list(dict.fromkeys(map(json.dumps, value)))
        windowed = "sliding_window" in default and spoken & {"sliding_attention", "sliding_window"}
        if kinds == ['"full_attention"'] and windowed:
            kinds.insert(0, '"sliding_attention"')
        if set(kinds) <= {'"sparse"', '"dense"'}:  # as first_k_dense_replace says it
            kinds = ['"dense"', '"sparse"', '"sparse"', '"sparse"']
        found[key] = [json.loads(kinds[i % len(kinds)]) for i in range(LAYERS)]
    return found


def _config_class(architecture: str, cls: type, entry: Entry) -> Any:
    """The configuration class of `architecture`, or None."""
    if entry.model_type is not None:
        return _known_class(entry.model_type)
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    for table in ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_MAPPING_NAMES"):
        for kind, names in getattr(auto, table).items():
            if architecture in (names if isinstance(names, tuple) else (names,)):
                known = _known_class(kind)
                if known is not None:
                    return _known_class(f"{kind}_text") or known
    try:
        hint = inspect.signature(cls).parameters["config"].annotation
    except (ValueError, KeyError):
        hint = None
    if isinstance(hint, str):
        hint = getattr(sys.modules[cls.__module__], hint, None)
    return _known_class(getattr(hint, "model_type", "")) or _known_class(_file(cls))


def _known_class(kind: str) -> Any:
    """The configuration class of a model_type, the engine's own before transformers', or None.

    Only this one is imported: all of them take longer than a case.
    """
    utils = importlib.import_module("sglang.srt.utils.hf_transformers_utils")
    table = getattr(utils, "_CONFIG_REGISTRY", None)
    if table is None:
        common = importlib.import_module("sglang.srt.utils.hf_transformers.common")
        table = common._CONFIG_REGISTRY
    own = dict(table)
    if kind in own:
        return own[kind]
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    try:
        return auto.CONFIG_MAPPING[kind]
    except Exception:  # a class that does not import is none
        return None


def _registry() -> dict[str, type]:
    registry = importlib.import_module("sglang.srt.models.registry").ModelRegistry
    registry.get_supported_archs()
    return {name: cls for name, cls in registry.models.items() if isinstance(cls, type)}


def _architecture(model: str) -> str:
    if model in _registry():
        return model
    # which classes build experts takes seconds to read for all files
    own = {name: cls for name, cls in sorted(_registry().items()) if _file(cls) == model}
    here = [name for name, cls in own.items() if _builds_experts(cls)]
    if not here:
        raise LookupError(f"{model}: no architecture that builds experts in this release")

    def rank(name: str) -> tuple[bool, bool, bool, int]:
        kind = "ForCausalLM" not in name, "NextN" in name
        return *kind, "moe" not in name.lower(), len(name)

    return min(here, key=rank)


def _entry(architecture: str, file: str) -> Entry:
    return ENTRIES.get(architecture) or ENTRIES.get(file) or Entry(why="nothing beyond the rule")


def _file(cls: type) -> str:
    return cls.__module__.rsplit(".", 1)[-1]


def _builds_experts(cls: type) -> bool:
    names = {"FusedMoE", "get_moe_impl_class", "fused_moe"}
    for base in _reachable(cls):
        for node in ast.walk(_tree(base)):
            if isinstance(node, ast.Name) and node.id == "fused_moe":
                return True  # dbrx and xverse_moe keep the function in an attribute
            if isinstance(node, ast.Call):
                called = node.func
                name = getattr(called, "id", getattr(called, "attr", ""))
                if name in names:
                    return True
    return False


_REACHED: dict[type, list[Any]] = {}
_TREES: dict[str, dict[str, ast.AST]] = {}


def _reachable(cls: type) -> list[Any]:
    """Classes and functions of the model files that `cls` names, directly or not."""
    if cls not in _REACHED:
        todo: list[Any] = list(cls.__mro__)
        seen: list[Any] = []
        while todo:
            one = todo.pop()
            if one in seen or not getattr(one, "__module__", "").startswith(_MODELS):
                continue
            seen.append(one)
            around = vars(sys.modules[one.__module__])
            used = {n.id for n in ast.walk(_tree(one)) if isinstance(n, ast.Name)}
            found = [around[name] for name in sorted(used) if name in around]
            todo += [o for o in found if isinstance(o, (type, types.FunctionType))]
            todo += list(one.__mro__) if isinstance(one, type) else []
        _REACHED[cls] = seen
    return _REACHED[cls]


def _tree(thing: Any) -> ast.AST:
    """The definition of a class or function at the top of its file, or nothing."""
    if thing.__module__ not in _TREES:
        source = inspect.getsource(sys.modules[thing.__module__])
        _TREES[thing.__module__] = {
            node.name: node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        }
    return _TREES[thing.__module__].get(thing.__name__, ast.Pass())


def _is_config(node: ast.AST) -> bool:
    return getattr(node, "id", getattr(node, "attr", "")) in _CONFIGS


def _is_read(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr")):
        return False
    return (
        len(node.args) > 1 and _is_config(node.args[0]) and isinstance(node.args[1], ast.Constant)
    )
