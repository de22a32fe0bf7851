"""The base and its adapters as Ollama's clients list and show them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgekit_runtime.formats.manifest import AUTO, BASE
from edgekit_runtime.server.left_out import ASIDE
from edgekit_runtime.server.ollama.names import tagged
from edgekit_runtime.server.ollama.tables import DEFAULTS
from edgekit_runtime.server.supervisor import Supervisor

NEVER = "9999-01-01T00:00:00Z"  # when a model that stays leaves memory
WIDTH = 30  # of the names in a list of parameters
_SIZES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def listed(supervisor: Supervisor) -> list[dict[str, Any]]:
    """The base, then each adapter and stack that may answer; auto, which chooses; sizes in bytes, with the base.

    The digest of a stack is that of its adapters' digests with their scales, that of auto of its fallback and all
    adapters' digests.
    """
    bundle, base = _bundle(supervisor)
    models: list[dict[str, Any]] = [{"name": BASE, "digest": base.get("digest"), "size": 0}]
    adapters = [model for model in supervisor.models if ASIDE not in model]
    models += [*adapters, *(_stacked(stack, adapters) for stack in supervisor.stacks)]
    models += [_choosing(bundle["auto"], adapters)] * supervisor.chooses
    return [
        {
            "name": tagged(model["name"]),
            "model": tagged(model["name"]),
            "modified_at": bundle.get("created"),
            "size": base.get("size", 0) + model.get("size", 0),
            "digest": model["digest"],
            "details": details(supervisor, model["name"]),
        }
        for model in models
    ]


def _stacked(stack: dict[str, Any], adapters: list[dict[str, Any]]) -> dict[str, Any]:
    """A stack as one model."""
    known = {model["name"]: model for model in adapters}
    parts = [(known[part["name"]], part["scale"]) for part in stack["adapters"]]
    facts = "".join(f"{model['digest']} {scale}\n" for model, scale in parts)
    return {
        "name": stack["name"],
        "digest": hashlib.sha256(facts.encode()).hexdigest(),
        "size": sum(model.get("size", 0) for model, _ in parts),
    }


def _choosing(fallback: str, adapters: list[dict[str, Any]]) -> dict[str, Any]:
    """Adapters among which the device chooses, as one model."""
    facts = "".join(f"{each}\n" for each in (fallback, *(model["digest"] for model in adapters)))
    size = sum(model.get("size", 0) for model in adapters)
    return {"name": AUTO, "digest": hashlib.sha256(facts.encode()).hexdigest(), "size": size}


def running(supervisor: Supervisor) -> list[dict[str, Any]]:
    """The same, as what is in memory: all of them are, or take a moment."""
    bundle, _ = _bundle(supervisor)
    kept = {"expires_at": NEVER, "size_vram": 0, "context_length": bundle.get("context")}
    found = listed(supervisor)
    for each in found:
        del each["modified_at"]
    return [each | kept for each in found]


def details(supervisor: Supervisor, name: str) -> dict[str, Any]:
    """What kind of model it is."""
    _, base = _bundle(supervisor)
    family = base.get("architecture", "")
    return {
        "parent_model": "" if name == BASE else tagged(BASE),
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": _rounded(base.get("parameters", 0)),
        "quantization_level": base.get("quantization", ""),
    }


def shown(supervisor: Supervisor, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """All that is known of one; ``about`` is what the worker says of it."""
    bundle, _ = _bundle(supervisor)
    parameters, system = _parameters(about["generation"]), about["system"]
    hidden = ("tokenizer.chat_template", "general.name")  # they have places of their own
    return {
        "modelfile": _modelfile(name, parameters, system),
        "parameters": "\n".join(f"{parameter:<{WIDTH}} {value}" for parameter, value in parameters.items()),
        "template": about["template"],
        "system": system or "",
        "details": details(supervisor, name),
        "model_info": {key: value for key, value in about["metadata"].items() if key not in hidden},
        "capabilities": [
            *("completion", "tools"),
            *(["vision"] if about["images"] else []),
            *(["thinking"] if about["reasons"] else []),
        ],
        "modified_at": bundle.get("created"),
    }


def _bundle(supervisor: Supervisor) -> tuple[dict[str, Any], dict[str, Any]]:
    bundle = supervisor.bundle or {}
    return bundle, bundle.get("base", {})


def _parameters(generation: dict[str, Any] | None) -> dict[str, Any]:
    found = {DEFAULTS.get(name): value for name, value in (generation or {}).items() if value is not None}
    return {name: value for name, value in found.items() if name is not None}


def _modelfile(name: str, parameters: dict[str, Any], system: str | None) -> str:
    """How Ollama would write it down, for people who read it."""
    lines = [f"# {name}, as edgekit-runtime serves it", f"FROM {tagged(BASE if name != BASE else name)}"]
    lines += [f"ADAPTER {name}"] if name != BASE else []
    lines += [f"PARAMETER {parameter} {value}" for parameter, value in parameters.items()]
    lines += [f"SYSTEM {json.dumps(system, ensure_ascii=False)}"] if system else []
    return "\n".join(lines) + "\n"


def _rounded(count: int) -> str:
    """134515008 -> 134.52M."""
    size, letter = next(((size, letter) for size, letter in _SIZES if count >= size), (1, ""))
    return f"{count / size:.4g}{letter}"
