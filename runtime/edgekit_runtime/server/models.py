"""What this service can be asked for, as OpenAI's, vLLM's, llama.cpp's and Anthropic's clients read it."""

from __future__ import annotations

import datetime
from typing import Any

from edgekit_runtime.formats.manifest import AUTO, BASE
from edgekit_runtime.server.left_out import ASIDE
from edgekit_runtime.server.supervisor import Supervisor

OWNER = "edgekit"


def model_cards(supervisor: Supervisor) -> list[dict[str, Any]]:
    """The base, then each adapter and stack that may answer; a stack with its adapters; auto, which chooses."""
    bundle = supervisor.bundle or {}
    created = _seconds(str(bundle.get("created")))
    shared = {
        "object": "model",
        "type": "model",
        "created": created,
        "created_at": datetime.datetime.fromtimestamp(created, datetime.UTC).isoformat(),
        "owned_by": OWNER,
        "max_model_len": bundle.get("context"),
        "max_input_tokens": bundle.get("context"),
    }
    family = bundle.get("base", {}).get("family")
    trained = bundle.get("base", {}).get("reasoning")
    cards: list[dict[str, Any]] = [
        {"id": BASE, "display_name": BASE, "root": family, "parent": None, "reasoning": trained} | shared
    ]
    for model in supervisor.models:
        if ASIDE not in model:
            name = model["name"]
            own = {"root": f"{name}-{model['version']}", "parent": BASE, "reasoning": model.get("reasoning")}
            cards.append({"id": name, "display_name": name} | own | shared)
    for stack in supervisor.stacks:
        name = stack["name"]
        own = {"root": name, "parent": BASE, "reasoning": stack["reasoning"], "adapters": stack["adapters"]}
        cards.append({"id": name, "display_name": name} | own | shared)
    if supervisor.chooses:
        cards.append({"id": AUTO, "display_name": AUTO, "root": AUTO, "parent": BASE, "reasoning": None} | shared)
    return cards


def adapter_names(supervisor: Supervisor) -> list[str]:
    """Adapters in the order of the numbers by which llama-server's clients name them."""
    return [model["name"] for model in supervisor.models if ASIDE not in model]


def lora_adapters(supervisor: Supervisor) -> list[dict[str, Any]]:
    """Adapters as llama-server lists them; none applies to requests that ask for the base."""
    return [{"id": number, "path": name, "scale": 0.0} for number, name in enumerate(adapter_names(supervisor))]


def _seconds(created: str) -> int:
    """A manifest's date as seconds since 1970; 0 for one that is none."""
    try:
        return int(datetime.datetime.fromisoformat(created).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0
