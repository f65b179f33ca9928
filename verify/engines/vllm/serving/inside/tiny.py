"""Tiny configurations, two layers and eight experts, in the words that each model file reads.

`models.json` has the models: the architecture and model type that the hub's configurations name,
the `bases` they are made `with`, what is `set` beside and what is to `drop`; or those of another
model, `like` it but for what is said; server `arguments` that a model asks for. `text` has the
bases of a multimodal model's text part.

Runs inside the engine's Python (standard library and transformers).
"""

import importlib
import json
from pathlib import Path
from typing import Any


def names() -> list[str]:
    """Every model, in the file's order."""
    return list(_tables()["models"])


def configuration(name: str) -> dict[str, Any]:
    """`config.json` of a model. Raises NotImplementedError for one that has no entry."""
    tables = _tables()
    entry = tables["models"].get(name)
    if entry is None:
        known = ", ".join(tables["models"])
        raise NotImplementedError(f"{name}: no tiny configuration; there are {known}")
    if "like" in entry:
        like = configuration(entry["like"]) | entry.get("set", {})
        like["architectures"] = [entry.get("architecture", *like["architectures"])]
        like["model_type"] = entry.get("model_type", like["model_type"])
        return {**like, "tiny_arguments": entry.get("arguments", like["tiny_arguments"])}
    made: dict[str, Any] = {"architectures": [entry["architecture"]]}
    for base in ("common", *entry["with"]) if "text" not in entry else ():
        made |= tables["bases"][base]
    made |= entry["set"] | {"model_type": entry["model_type"]}
    if "text" in entry:
        text: dict[str, Any] = {}
        for base in entry["text"]:
            text |= tables["bases"][base]
        made["text_config"] = text | entry["set"]["text_config"]
    for key in entry.get("drop", ()):
        made.pop(key, None)
    return {**made, "tiny_arguments": entry.get("arguments", [])}


def write(name: str, folder: Path) -> None:
    """`config.json` of a model in `folder`."""
    (folder / "config.json").write_text(json.dumps(configuration(name), indent=1), "utf-8")


def register() -> None:
    """A plain configuration class for model types that neither transformers nor vLLM has.

    It is what the hub's repositories of these models bring along.
    """
    auto: Any = importlib.import_module("transformers.models.auto.configuration_auto")
    base: Any = importlib.import_module("transformers").PretrainedConfig

    class Plain(base):  # type: ignore[misc]
        def __post_init__(self, **words: Any) -> None:
            for key in ("text_config", "vision_config"):
                if isinstance(words.get(key), dict):
                    words[key] = Plain(**words[key])
            super().__post_init__(**words)

    own: Any = importlib.import_module("vllm.transformers_utils.config")._CONFIG_REGISTRY
    for name in names():
        kind = configuration(name)["model_type"]
        if kind not in auto.CONFIG_MAPPING and kind not in own:
            auto.AutoConfig.register(kind, type(f"Tiny_{kind}", (Plain,), {"model_type": kind}))


def _tables() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("models.json").read_text("utf-8")))
