"""Rows to token ids exactly as the device makes them, with the loss on the answer only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.data import Row
from edgekit_runtime.chat import ChatTemplate, apply_system
from edgekit_runtime.errors import InputError

IGNORED = -100  # label that torch's cross entropy leaves out
Encoded = dict[str, list[int]]


class Encoder:
    """Chat messages to token ids, through the same template code as on the device."""

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of a Hugging Face folder.

        Raises:
            InputError: no tokenizer there, or one without a chat template.
        """
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} has no usable tokenizer ({str(error).splitlines()[0]})", "download the model again"
            ) from None
        if not self.tokenizer.chat_template:
            raise InputError(f"{folder} has no chat template", "choose an instruct or chat model as the base")
        self.bos = str(self.tokenizer.bos_token or "")
        self.template = ChatTemplate(str(self.tokenizer.chat_template), self.bos, str(self.tokenizer.eos_token or ""))
        # Some tokenizers put BOS before any text; the device does so too, unless the template has written it.
        self._adds_bos = bool(self.bos) and self.tokenizer("a").input_ids[:1] == [self.tokenizer.bos_token_id]
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def prompt(self, row: Row, system: str | None) -> str:
        """The text that the model continues."""
        return self.template.render(apply_system(list(row.messages), system), add_generation_prompt=True)

    def prompt_ids(self, row: Row, system: str | None) -> list[int]:
        """The same as token ids."""
        return self._ids(self.prompt(row, system), starts_text=True)

    def answer_ids(self, row: Row, system: str | None) -> list[int]:
        """The answer with the token that ends the turn; what comes after that token is never generated.

        Raises:
            InputError: the template doesn't start the answer with the generation prompt.
        """
        prompt = self.prompt(row, system)
        messages = [*apply_system(list(row.messages), system), {"role": "assistant", "content": row.answer}]
        whole = self.template.render(messages, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise InputError(
                f"{row.where}: the base's chat template rewrites the conversation when an answer follows",
                "use a chat template that only appends",
            )
        ids = self._ids(whole[len(prompt) :], starts_text=False)
        ends = [position for position, token in enumerate(ids) if token in self.end_tokens()]
        return ids[: ends[-1] + 1] if ends else [*ids, int(self.tokenizer.eos_token_id)]

    def end_tokens(self) -> set[int]:
        """Tokens that end a turn: EOS, and an <|im_end|>-like token where the tokenizer has one."""
        ends = {int(self.tokenizer.eos_token_id)}
        for text in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"):
            token = self.tokenizer.convert_tokens_to_ids(text)
            if isinstance(token, int) and token >= 0 and token != self.tokenizer.unk_token_id:
                ends.add(token)
        return ends

    def decode(self, ids: Iterable[int]) -> str:
        """Answer text of generated ids, up to the end of the turn."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def encode(self, row: Row, system: str | None, max_length: int) -> Encoded:
        """One training example.

        Raises:
            InputError: the row is longer than ``max_length`` tokens.
        """
        prompt, answer = self.prompt_ids(row, system), self.answer_ids(row, system)
        if len(prompt) + len(answer) > max_length:
            raise InputError(
                f"{row.where}: the row is {len(prompt) + len(answer)} tokens long and the limit is {max_length}",
                "shorten or split it, or raise max_length if the base's context allows it",
            )
        return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}

    def _ids(self, text: str, *, starts_text: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        if starts_text and self._adds_bos and not text.startswith(self.bos):
            ids.insert(0, int(self.tokenizer.bos_token_id))
        return ids
