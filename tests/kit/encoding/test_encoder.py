from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.data import Row
from edgekit.encoding.encoder import IGNORED, Encoder
from edgekit_runtime.errors import InputError


@pytest.fixture(scope="module")
def encoder(tiny_chat_base: Path) -> Encoder:
    return Encoder(tiny_chat_base)


def _row(prompt: str = "scratch of 3 mm", answer: str = "rework") -> Row:
    return Row(({"role": "user", "content": prompt},), answer, (), "data/train.jsonl:7")


def test_only_the_answer_and_the_end_of_its_turn_are_learned(encoder: Encoder) -> None:
    (encoded,) = encoder.encode(_row(), "You inspect parts.", 256)
    learned = [label for label in encoded["labels"] if label != IGNORED]
    assert encoder.tokenizer.decode(learned) == "rework<|im_end|>"
    assert encoded["input_ids"][-len(learned) :] == learned


def test_the_prompt_is_what_the_chat_template_makes_of_it(encoder: Encoder) -> None:
    messages = [{"role": "system", "content": "You inspect parts."}, {"role": "user", "content": "scratch of 3 mm"}]
    wanted = encoder.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    wanted = wanted["input_ids"] if hasattr(wanted, "keys") else wanted
    assert encoder.prompt_ids(_row(), "You inspect parts.") == wanted


def test_a_row_longer_than_the_limit_is_named_with_its_line(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"data/train\.jsonl:7: the row is \d+ tokens long and the limit is 32"):
        encoder.encode(_row(prompt="scratch " * 40), None, 32)


def test_a_base_without_chat_template_is_refused(tiny_chat_base: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_chat_base / name).read_bytes())
    with pytest.raises(InputError, match="no chat template"):
        Encoder(tmp_path)
