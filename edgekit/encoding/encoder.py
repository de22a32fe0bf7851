"""Rows to token ids exactly as the device makes them, with the loss on answers only."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.data import Row
from edgekit.encoding.completions import (
    TOOL_CALLS,
    answer_text,
    leaves_answer_out,
    reply_of,
    turns_of,
    without_reasoning,
)
from edgekit_exporters.hf.end_tokens import control_tokens, end_tokens
from edgekit_exporters.hf.templates import load_tokenizer, tokenizer_facts
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import ImageTemplate, Message, TextTemplate, apply_system, check_messages, text_of
from edgekit_runtime.prompts.reasoning import DROP, tags_of, template_arguments
from edgekit_runtime.prompts.specials import Asked, Disguise, Specials, is_control
from edgekit_runtime.prompts.template import ChatTemplate
from edgekit_runtime.prompts.tool_format import ToolFormat

if TYPE_CHECKING:
    from edgekit.encoding.images import RowImages

log = logging.getLogger(__name__)

IGNORED = -100  # label that torch's cross entropy leaves out
Encoded = dict[str, list[int]]


class Encoder:
    """Chat messages to token ids, through the same template code as on the device."""

    def __init__(
        self,
        folder: Path,
        *,
        reads_images: bool = False,
        images: RowImages | None = None,
        reasoning: str | None = None,
    ) -> None:
        """Load the tokenizer of a Hugging Face folder.

        Args:
            folder: the base's.
            reads_images: the base is one for images; its template gets messages in parts then, as on the device.
            images: where the images of rows come from; without it no prompt can be encoded that has some.
            reasoning: ``keep`` or ``drop``; None asks as the template does by itself.

        Raises:
            InputError: no tokenizer there, or one without a chat template, or without a token that ends a text.
        """
        from transformers import AutoConfig

        self.tokenizer: Any = load_tokenizer(folder)
        self.facts = tokenizer_facts(self.tokenizer, folder)
        self.template = ChatTemplate.of(self.facts)
        self.template.try_out()
        self.reasoning = reasoning
        self.arguments = template_arguments(self.template, reasoning)
        self.bos = str(self.tokenizer.bos_token or "")
        self.images = images
        self._ends = end_tokens(self.tokenizer, folder, self.template)
        self._vocabulary = (
            0 if images is None else int(AutoConfig.from_pretrained(folder, trust_remote_code=False).vocab_size)
        )
        self._sees = reads_images or images is not None
        self._form = ImageTemplate(self.template) if self._sees else TextTemplate(self.template)
        self._specials = Specials(control_tokens(self.tokenizer), self.template.literals)
        self._told_of_specials = False
        # Some tokenizers put BOS before any text; the device does so too, unless the template has written it.
        self._adds_bos = self.tokenizer.bos_token_id is not None and self.tokenizer("a").input_ids[:1] == [
            self.tokenizer.bos_token_id
        ]
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def settled(self, row: Row, system: str | None) -> Row:
        """A row as it is asked and scored: without reasoning in its history where that is dropped; the answer of one
        that calls functions is the text that the template makes of the calls.

        Raises:
            InputError: as :meth:`answer_ids`.
        """
        row = without_reasoning(row) if self.reasoning == DROP else row
        if not reply_of(row).get(TOOL_CALLS):
            return row
        return replace(row, answer=self.decode(self.answer_ids(row, system)))

    def prompt_ids(self, row: Row, system: str | None) -> list[int]:
        """The text that the model continues as token ids; cells of images are negative, the same as on the device.

        Raises:
            InputError: the base reads no images, and the row has some, or an image can't be read.
        """
        row, system, disguise = self._disguised(row, system, [])
        first, *rest = self.prompt(row, system, disguise)
        ids = self._ids(first, disguise, starts_text=True)
        for path, text in zip(row.images, rest, strict=True):
            assert self.images is not None, "an encoder of answers only"
            try:
                ids += self.images.layout(path)
            except InputError as error:
                raise InputError(f"{row.where}: {error.problem}", error.hint) from None
            ids += self._ids(text, disguise, starts_text=False)
        return ids

    def model_ids(self, ids: list[int]) -> list[int]:
        """Ids that a torch model takes; see :func:`~edgekit.encoding.images.let_see`."""
        return ids if self.images is None else self.images.as_rows(ids, self._vocabulary)

    def answer_ids(self, row: Row, system: str | None) -> list[int]:
        """The answer with the token that ends the turn; what comes after that token is never generated.

        Raises:
            InputError: the template can't say this answer after its own prompt.
        """
        row, system, disguise = self._disguised(row, system, [reply_of(row)])
        *_, prompt = before = self.prompt(row, system, disguise)

        def render(reply: Message) -> str | None:
            whole = self._render(row, system, [reply], disguise, add_generation_prompt=False)
            return whole[-1] if whole[:-1] == before[:-1] else None

        with _telling_where(row):
            question = text_of(row.messages[-1]).strip()
            text = answer_text(prompt, question, reply_of(row), render, tags_of(self.template), self.reasoning)
            ids = self._following(prompt, text, disguise, starts_text=len(before) == 1)
            if row.answer.strip() and not self.decode(ids):
                raise leaves_answer_out()
        ends = [position for position, token in enumerate(ids) if token in self.end_tokens()]
        return ids[: ends[-1] + 1] if ends else [*ids, int(self.tokenizer.eos_token_id)]

    def invocation_ids(self, text: str | None) -> list[int]:
        """Token ids from which an activated LoRA works: of ``text``, or of what the template puts before an answer.

        Raises:
            InputError: the template puts nothing there.
        """
        if text is None:
            row = Row(({"role": "user", "content": "?"},), "", (), "the chat template")
            before = self._render(row, None, [], None, add_generation_prompt=False)[-1]
            text = self.prompt(row, None)[-1].removeprefix(before)
        if not text:
            raise InputError("the base's chat template puts nothing before an answer", "set invocation: to a text")
        return self._ids(text, None, starts_text=False)

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer, on the device too; see :func:`~edgekit_exporters.hf.end_tokens.end_tokens`."""
        return self._ends

    def decode(self, ids: Iterable[int]) -> str:
        """Answer text of generated ids, up to the end of the turn; control tokens around calls are part of it."""
        kept, texts, run = self._call_tokens, [], list[int]()
        for token in ids:
            if token in kept:
                texts += [self._plain(run), kept[token]]
                run = []
            else:
                run.append(token)
        return "".join([*texts, self._plain(run)]).strip()

    def _plain(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    @property
    def call_form(self) -> ToolFormat:
        """How calls of tools stand in answers."""
        return self._form.tools.form

    @functools.cached_property
    def _call_tokens(self) -> dict[int, str]:
        """Control tokens that stand around calls, by their numbers."""
        literals = self.call_form.literals
        ids = (self.tokenizer(each, add_special_tokens=False).input_ids for each in literals)
        found = {token for each in ids for token in each} - self._ends
        added = self.tokenizer.added_tokens_decoder
        return {token: str(added[token]) for token in found if token in added and added[token].special}

    def encode(
        self, row: Row, system: str | None, max_length: int, *, every_turn: bool = False, join: bool = True
    ) -> list[Encoded]:
        """Training examples of a row.

        Args:
            row: the row.
            system: system prompt of the adapter.
            max_length: of an example, in tokens.
            every_turn: learn all turns of the assistant, each after the prompt that inference has there.
            join: turns share an example, where the prompt of the later one goes on from the earlier one to the token.

        Raises:
            InputError: the row is longer than ``max_length`` tokens, or can't be rendered.
        """
        row = without_reasoning(row) if self.reasoning == DROP else row
        examples: list[Encoded] = []
        for turn in turns_of(row) if every_turn else [row]:
            prompt, answer = self.prompt_ids(turn, system), self.answer_ids(turn, system)
            learnt = examples[-1]["input_ids"] if join and examples else None
            labels = examples.pop()["labels"] if learnt and prompt[: len(learnt)] == learnt else []
            labels = [*labels, *[IGNORED] * (len(prompt) - len(labels)), *answer]
            examples.append({"input_ids": prompt + answer, "labels": labels})
        longest = max(len(example["labels"]) for example in examples)
        if longest > max_length:
            raise InputError(
                f"{row.where}: the row is {longest} tokens long and the limit is {max_length}",
                "shorten or split it, or raise max_length if the base's context allows it",
            )
        return [{**example, "input_ids": self.model_ids(example["input_ids"])} for example in examples]

    def _disguised(
        self, row: Row, system: str | None, answer: list[Message]
    ) -> tuple[Row, str | None, Disguise | None]:
        """A row in which nothing is a control token; see :mod:`edgekit_runtime.prompts.specials`."""
        asked = Asked([*self._messages(row, system), *answer], row.tools)
        if not self._specials.concern(asked):
            return row, system, None
        token = self._specials.found_in(list(asked))
        if token is not None and not self._told_of_specials:
            self._told_of_specials = True
            log.warning("%s: %s is a control token of the base; in a row it is text, as on devices", row.where, token)

        def render(each: Asked) -> tuple[str, ...]:
            options = {"arguments": self.arguments, "add_generation_prompt": False}
            return self._form.render(each.messages, len(row.images), tools=each.tools, **options)

        with _telling_where(row):
            _, disguise = self._specials.rendered(asked, render)
        assert disguise is not None  # as the row has such signs
        row = replace(
            row,
            messages=tuple(map(disguise.message, row.messages)),
            answer=disguise.answer(row.answer),
            tools=tuple(disguise.value(row.tools)),
            reply=None if row.reply is None else disguise.message(row.reply),
        )
        return row, disguise.value(system), disguise

    def _messages(self, row: Row, system: str | None) -> list[Message]:
        with _telling_where(row):
            return apply_system(check_messages(row.messages, len(row.images)), system)

    def prompt(self, row: Row, system: str | None, disguise: Disguise | None = None) -> tuple[str, ...]:
        """The text that the model continues, cut at the row's images.

        Raises:
            InputError: the base reads no images, and the row has some.
        """
        return self._render(row, system, [], disguise, add_generation_prompt=True)

    def _render(
        self,
        row: Row,
        system: str | None,
        answer: list[Message],
        disguise: Disguise | None,
        *,
        add_generation_prompt: bool,
    ) -> tuple[str, ...]:
        count = len(row.images)
        if count and not self._sees:
            raise InputError(f"{row.where}: the base reads no images", "use one that does as base:, demo-vlm say")
        with _telling_where(row):
            messages = [*self._messages(row, system), *answer]
            options = {"arguments": self.arguments, "add_generation_prompt": add_generation_prompt}
            texts = self._form.render(messages, count, tools=row.tools, **options)
            return texts if disguise is None else disguise.mended(texts)

    def _following(self, prompt: str, text: str, disguise: Disguise | None, *, starts_text: bool) -> list[int]:
        """Token ids of ``text`` after a prompt, which is tokenised alone when it is asked.

        Some tokenizers put a space before any text; none comes where the text only goes on.
        """
        before = self._ids(prompt, disguise, starts_text=starts_text)
        whole = self._ids(prompt + text, disguise, starts_text=starts_text)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return self._ids(text, disguise, starts_text=False)

    def _ids(self, text: str, disguise: Disguise | None, *, starts_text: bool) -> list[int]:
        ids = self._specials.ids(text, disguise, self._piece_ids)
        if starts_text and self._adds_bos and ids[:1] != [self.tokenizer.bos_token_id]:
            ids.insert(0, int(self.tokenizer.bos_token_id))
        return ids

    def _piece_ids(self, text: str, special: bool) -> list[int]:
        tokenizer = self.tokenizer if special else self._without_control
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=not special).input_ids
        return ids

    @functools.cached_property
    def _without_control(self) -> Any:
        """The tokenizer with what looks like a control token declared one, as llama.cpp's converters do."""
        added = self.tokenizer.added_tokens_decoder.values()
        looks = [str(each) for each in added if is_control(str(each)) and not each.special]
        if not looks:
            return self.tokenizer
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": looks})
        return tokenizer


@contextmanager
def _telling_where(row: Row) -> Iterator[None]:
    """Name the row in errors of its rendering."""
    try:
        yield
    except InputError as error:
        if error.problem.startswith(f"{row.where}:"):
            raise
        raise InputError(f"{row.where}: {error.problem}", error.hint) from None
