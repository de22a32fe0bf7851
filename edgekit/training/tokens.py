"""Rows to token ids exactly as the device makes them, with the loss on the answer only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.data import Row
from edgekit_runtime.chat import ChatTemplate, ImageTemplate, Message, apply_system, check_messages, text_of
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    from edgekit.seeing import RowImages

IGNORED = -100  # label that torch's cross entropy leaves out
Encoded = dict[str, list[int]]


class Encoder:
    """Chat messages to token ids, through the same template code as on the device."""

    def __init__(self, folder: Path, *, reads_images: bool = False, images: RowImages | None = None) -> None:
        """Load the tokenizer of a Hugging Face folder.

        Args:
            folder: the base's.
            reads_images: the base is one for images; its template gets messages in parts then, as on the device.
            images: where the images of rows come from; without it no prompt can be encoded that has some.

        Raises:
            InputError: no tokenizer there, or one without a chat template.
        """
        from transformers import AutoConfig, AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} has no usable tokenizer ({str(error).splitlines()[0]})", "download the model again"
            ) from None
        if not self.tokenizer.chat_template:
            raise InputError(f"{folder} has no chat template", "choose an instruct or chat model as the base")
        self.bos = str(self.tokenizer.bos_token or "")
        self.template = ChatTemplate(str(self.tokenizer.chat_template), self.bos, str(self.tokenizer.eos_token or ""))
        self.images = images
        self._vocabulary = (
            0 if images is None else int(AutoConfig.from_pretrained(folder, trust_remote_code=False).vocab_size)
        )
        self._with_images = ImageTemplate(self.template) if reads_images or images is not None else None
        # Some tokenizers put BOS before any text; the device does so too, unless the template has written it.
        self._adds_bos = bool(self.bos) and self.tokenizer("a").input_ids[:1] == [self.tokenizer.bos_token_id]
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def prompt(self, row: Row, system: str | None) -> tuple[str, ...]:
        """The text that the model continues, cut at the row's images.

        Raises:
            InputError: the base reads no images, and the row has some.
        """
        return self._render(row, system, [], add_generation_prompt=True)

    def prompt_ids(self, row: Row, system: str | None) -> list[int]:
        """The same as token ids; cells of images are negative ids, the same as on the device.

        Raises:
            InputError: an image can't be read.
        """
        first, *rest = self.prompt(row, system)
        ids = self._ids(first, starts_text=True)
        for path, text in zip(row.images, rest, strict=True):
            assert self.images is not None, "an encoder of answers only"
            try:
                ids += self.images.layout(path)
            except InputError as error:
                raise InputError(f"{row.where}: {error.problem}", error.mend) from None
            ids += self._ids(text, starts_text=False)
        return ids

    def model_ids(self, ids: list[int]) -> list[int]:
        """Ids that a torch model takes; see :func:`~edgekit.seeing.let_see`."""
        return ids if self.images is None else self.images.as_rows(ids, self._vocabulary)

    def answer_ids(self, row: Row, system: str | None) -> list[int]:
        """The answer with the token that ends the turn; what comes after that token is never generated.

        Raises:
            InputError: the template doesn't start the answer with the generation prompt.
        """
        prompt = self.prompt(row, system)
        answer = [{"role": "assistant", "content": row.answer}]
        whole = self._render(row, system, answer, add_generation_prompt=False)
        if whole[:-1] != prompt[:-1] or not whole[-1].startswith(prompt[-1]):
            raise InputError(
                f"{row.where}: the base's chat template rewrites the conversation when an answer follows",
                "use a chat template that only appends",
            )
        ids = self._ids(whole[-1][len(prompt[-1]) :], starts_text=False)
        ends = [position for position, token in enumerate(ids) if token in self.end_tokens()]
        return ids[: ends[-1] + 1] if ends else [*ids, int(self.tokenizer.eos_token_id)]

    def invocation_ids(self, text: str | None) -> list[int]:
        """Token ids from which an activated LoRA works: of ``text``, or of what the template puts before an answer.

        Raises:
            InputError: the template puts nothing there.
        """
        if text is None:
            row = Row(({"role": "user", "content": "?"},), "", (), "the chat template")
            before = self._render(row, None, [], add_generation_prompt=False)[-1]
            text = self._render(row, None, [], add_generation_prompt=True)[-1].removeprefix(before)
        if not text:
            raise InputError("the base's chat template puts nothing before an answer", "set invocation: to a text")
        return self._ids(text, starts_text=False)

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
        return {"input_ids": self.model_ids(prompt) + answer, "labels": [IGNORED] * len(prompt) + answer}

    def _render(
        self, row: Row, system: str | None, answer: list[Message], *, add_generation_prompt: bool
    ) -> tuple[str, ...]:
        count = len(row.images)
        messages = [*apply_system(check_messages(row.messages, count), system), *answer]
        if self._with_images is not None:
            return self._with_images.render(messages, count, add_generation_prompt=add_generation_prompt)
        if count:
            raise InputError(f"{row.where}: the base reads no images", "use one that does as base:, demo-vlm say")
        messages = [{**each, "content": text_of(each)} for each in messages]
        return (self.template.render(messages, add_generation_prompt=add_generation_prompt),)

    def _ids(self, text: str, *, starts_text: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        if starts_text and self._adds_bos and not text.startswith(self.bos):
            ids.insert(0, int(self.tokenizer.bos_token_id))
        return ids
