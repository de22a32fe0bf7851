"""Prompt adapters of PEFT (prompt tuning, P-tuning): rows of embeddings that stand before the whole sequence.

What PEFT saves of both is the same, the rows alone: it has run P-tuning's encoder (an MLP or LSTM) by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import Base
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.prompt_adapter import MAX_VIRTUAL_TOKENS

PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING")
ROWS = "prompt_embeddings"  # PEFT's name of the only tensor
# Vectors that are no embeddings, and why they can't be exported.
OTHER_VECTORS = {
    **dict.fromkeys(
        ("PREFIX_TUNING", "CARTRIDGE"),
        "its vectors are keys and values inside of each layer (past_key_values), and llama.cpp takes none from outside",
    ),
    "MULTITASK_PROMPT_TUNING": "its rows depend on the number of a task, which no request has",
    "CPT": "its rows depend on labelled examples that are part of it",
}
# They tell of a training or a place, or are of the encoder that is folded.
TOLD = (
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode"),
    *("task_type", "peft_type", "num_attention_heads", "num_layers"),
    *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    *("encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout"),
)
CHECKED = ("num_virtual_tokens", "token_dim", "num_transformer_submodules")
AGAIN = "save it again with PEFT's save_pretrained"


@dataclass(frozen=True)
class TakenPrompt:
    """A prompt adapter that has been checked against its base.

    Attributes:
        path: what the user named, for messages.
        base: that it fits.
        rows: [virtual tokens, width of the base's embedding], float32; not to be changed.
    """

    path: Path
    base: Base
    rows: torch.Tensor

    rank = 0
    connector = None

    @property
    def targets(self) -> list[str]:
        """None: it changes no layer."""
        return []

    @property
    def virtual_tokens(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def invocation(self) -> tuple[int, ...]:
        """None: it always works."""
        return ()


def is_prompt(raw: Mapping[str, Any]) -> bool:
    """Whether a config is that of a prompt adapter."""
    return raw.get("peft_type") in PROMPT_TYPES


def checked_prompt(
    raw: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], width: int, file: Path, weights_file: Path
) -> torch.Tensor:
    """The rows of a prompt adapter, [virtual tokens, width], float32.

    Args:
        raw: what adapter_config.json says, unchecked.
        tensors: by the file's names; finite.
        width: of the base's embedding.
        file: adapter_config.json, for messages.
        weights_file: likewise.

    Raises:
        InputError: a key that is on and isn't understood, another tensor than the rows, or another number or width of
            them.
    """
    for key, value in raw.items():
        if key not in (*TOLD, *CHECKED) and value not in (None, False, 0, "", [], {}):
            raise InputError(
                f"{file}: {key} is on, and edgekit doesn't know what it does to a prompt adapter",
                f"train without {key}; where it changes nothing, take it out of the file",
            )
    count = raw.get("num_virtual_tokens")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= MAX_VIRTUAL_TOKENS:
        raise InputError(
            f"{file}: num_virtual_tokens: {count!r} is no whole number from 1 to {MAX_VIRTUAL_TOKENS}",
            "write what was trained with",
        )
    if raw.get("num_transformer_submodules") not in (None, 1):
        raise InputError(f"{file}: num_transformer_submodules: it is for models with an encoder", "use a decoder alone")
    others = sorted(tensors.keys() - {ROWS})
    if ROWS not in tensors or others:
        found = f"holds {others[0]}" if others else "is missing it"
        raise InputError(f"{weights_file} has to hold the tensor {ROWS} and no other, and {found}", AGAIN)
    rows = tensors[ROWS].float()
    if tuple(rows.shape) != (count, width) or raw.get("token_dim") not in (None, width):
        raise InputError(
            f"{weights_file}: {ROWS} is {list(rows.shape)}, and {count} virtual tokens on this base are"
            f" {[count, width]}",
            "use the base that it was trained on",
        )
    return rows


def learn_prompt(model: Any, config: Any) -> Any:
    """``model`` wrapped by PEFT with virtual tokens before what it reads.

    PEFT finds the embedding by the size of a parameter, which packed bases don't have.
    """
    from peft import get_peft_model

    wrapped = get_peft_model(model, config)
    wrapped.word_embeddings = model.get_input_embeddings()
    return wrapped


def prompt_config(count: int, width: int) -> Any:
    """PEFT's configuration of plain rows."""
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=count,
        token_dim=width,
        num_layers=1,  # this and the next are for keys and values, of which there are none
        num_attention_heads=1,
        num_transformer_submodules=1,
    )


def set_rows(wrapped: Any, rows: torch.Tensor) -> None:
    """Put rows into PEFT's model of :func:`prompt_config`."""
    weight = wrapped.prompt_encoder["default"].embedding.weight
    weight.data = rows.to(weight.device, weight.dtype)


def attach_prompt(model: Any, adapter: TakenPrompt) -> Any:
    """``model``, the adapter's base at any precision, wrapped by PEFT with the rows before what it reads."""
    from peft import get_peft_model_state_dict

    wrapped = learn_prompt(model, prompt_config(*adapter.rows.shape))
    set_rows(wrapped, adapter.rows)
    loaded = get_peft_model_state_dict(wrapped)
    if loaded.keys() != {ROWS} or not torch.equal(loaded[ROWS].detach().cpu(), adapter.rows):
        raise EdgekitError(f"PEFT did not load {ROWS} of {adapter.path} as it is in the file")
    return wrapped
