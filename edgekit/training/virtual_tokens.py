"""Prompt tuning and P-tuning: embeddings before the prompt are trained, and nothing in the base."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from peft import PromptEncoderConfig, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from edgekit.encoding.encoder import Encoder
from edgekit.project import PROMPT_TUNING, Adapter
from edgekit_exporters.peft.names import ADAPTER
from edgekit_exporters.peft.prompts import learn_prompt, prompt_config, set_rows
from edgekit_runtime.errors import InputError

ENCODER_FILE = "encoder.safetensors"  # of P-tuning, in checkpoints


def wrap_with_virtual_tokens(
    model: Any, adapter: Adapter, precision: str, encoder: Encoder, *, checkpointing: bool
) -> Any:
    """Freeze ``model`` and put trainable virtual tokens (float32) before what it reads.

    Args:
        model: the base.
        adapter: its settings.
        precision: of the base.
        encoder: turns the text that prompt tuning starts from into token ids.
        checkpointing: whether activations are computed again in the backward pass.

    Raises:
        InputError: a text without tokens.
    """
    if precision in ("nf4", "int8"):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif checkpointing:
        model.enable_input_require_grads()
    count, width = adapter.token_count, int(model.get_input_embeddings().embedding_dim)
    if adapter.method != PROMPT_TUNING:
        plain = prompt_config(count, width).to_dict()
        shared = {key: plain[key] for key in _SHARED}
        return learn_prompt(model, PromptEncoderConfig(**shared, encoder_hidden_size=width))
    wrapped = learn_prompt(model, prompt_config(count, width))
    ids = torch.tensor(_start(adapter, encoder, count), device=model.device)
    with torch.no_grad():
        set_rows(wrapped, model.get_input_embeddings()(ids).float())
    return wrapped


_SHARED = (
    *("task_type", "num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads"),
    "num_transformer_submodules",
)


def _start(adapter: Adapter, encoder: Encoder, count: int) -> list[int]:
    """Token ids whose embeddings training starts from: those of a text, again and again, or any (PEFT's TEXT and
    SAMPLE_VOCAB, which need an embedding that isn't packed).
    """
    text = adapter.init_text or adapter.system
    if text is None:
        return torch.randint(0, len(encoder.tokenizer), (count,)).tolist()
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"the text that adapter {adapter.name} starts from has no tokens", "change init_text")
    return list(itertools.islice(itertools.cycle(ids), count))


class KeptEncoder(TrainerCallback):
    """P-tuning's encoder in checkpoints: PEFT saves the rows that come out of it, and it can't go on from these."""

    def __init__(self, model: Any, checkpoint: Path | None) -> None:
        """``checkpoint`` is what training goes on from."""
        self._encoder: torch.nn.Module = model.prompt_encoder[ADAPTER]
        self._checkpoint = checkpoint

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Put it beside the rows."""
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        save_file(
            {name: value.contiguous() for name, value in self._encoder.state_dict().items()}, folder / ENCODER_FILE
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Go on with it; the Trainer has put rows in its place."""
        if self._checkpoint is not None:
            self._load(self._checkpoint)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Take the best one where the Trainer has done so with the rows."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self._load(Path(state.best_model_checkpoint))

    def _load(self, checkpoint: Path) -> None:
        file = checkpoint / ENCODER_FILE
        if not file.exists():
            raise InputError(f"{checkpoint} lacks {ENCODER_FILE}: it is not whole", "start without --resume")
        self._encoder.load_state_dict(load_file(file))
