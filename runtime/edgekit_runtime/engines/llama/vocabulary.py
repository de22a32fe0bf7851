"""A tokeniser and its samplers, through llama.cpp: of a whole model, or of a GGUF file that holds a vocabulary alone.

Every engine reads text and chooses tokens with this code, so that the same bundle in another format sees the same
prompts, keeps to the same grammars and draws the same tokens from the same seed.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines.base import Sampling
from edgekit_runtime.engines.llama.library import clear_errors, reason, start_backend
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS, MOST_BYTES, end_tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

MAX_PIECE_BYTES = 512
CANDIDATE = [("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]  # llama_token_data


class LlamaVocabulary:
    """Tokens of one model."""

    def __init__(self, model: Any, *, owned: bool = False) -> None:
        """Look at ``model``'s vocabulary; an owned model is freed with it.

        Raises:
            InputError: its metadata names tokens that end an answer, and there are no such.
        """
        self.handle = llama.llama_model_get_vocab(model)
        self._model = model if owned else None
        self._piece = ctypes.create_string_buffer(MAX_PIECE_BYTES)
        self._ends = end_tokens_of(
            _metadata(model, KEY_END_TOKENS), llama.llama_vocab_n_tokens(self.handle), "the base"
        )

    @classmethod
    def open(cls, path: Path) -> LlamaVocabulary:
        """The vocabulary of a GGUF file, without weights.

        Raises:
            InputError: llama.cpp refuses the file.
        """
        start_backend()
        clear_errors()
        parameters = llama.llama_model_default_params()
        parameters.vocab_only = True
        model = llama.llama_model_load_from_file(str(path).encode(), parameters)
        if not model:
            raise InputError(f"llama.cpp refuses {path}{reason()}", "copy or export it again")
        try:
            return cls(model, owned=True)
        except InputError:
            llama.llama_model_free(model)
            raise

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids; ``add_special`` puts BOS first where the model wants it."""
        data = text.encode()
        room = len(data) + 8  # a token stands for at least one byte, specials come on top
        tokens = (llama.llama_token * room)()
        count = llama.llama_tokenize(self.handle, data, len(data), tokens, room, add_special, parse_special)
        if count < 0:
            raise EdgekitError("llama.cpp could not tokenise the text")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token, none for special ones."""
        length = llama.llama_token_to_piece(self.handle, token, self._piece, MAX_PIECE_BYTES, 0, False)
        return self._piece.raw[: max(length, 0)]

    def is_end(self, token: int) -> bool:
        """Whether this token ends a generation, by the vocabulary's marks or by the base's own list."""
        return token in self._ends or self.marks_end(token)

    def marks_end(self, token: int) -> bool:
        """Whether llama.cpp by itself takes this token for an end."""
        return bool(llama.llama_vocab_is_eog(self.handle, token))

    def close(self) -> None:
        """Free a model that holds nothing else."""
        if self._model:
            llama.llama_model_free(self._model)
            self._model = None


def _metadata(model: Any, key: str) -> str | None:
    """A text in a model's metadata."""
    room = ctypes.create_string_buffer(MOST_BYTES + 2)  # one more than is taken, so that a longer one is noticed
    length = llama.llama_model_meta_val_str(model, key.encode(), room, len(room))
    return None if length < 0 else room.value.decode("utf-8", "replace")


def sampler_chain(vocabulary: Any, sampling: Sampling) -> Any:
    """A chain of llama.cpp's samplers.

    Raises:
        InputError: llama.cpp doesn't understand the grammar.
    """
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    if sampling.grammar is not None:
        clear_errors()
        grammar = llama.llama_sampler_init_grammar(vocabulary, sampling.grammar.encode(), b"root")
        if not grammar:
            llama.llama_sampler_free(chain)
            raise InputError(f"the schema makes no grammar that llama.cpp understands{reason()}", "simplify it")
        llama.llama_sampler_chain_add(chain, grammar)
    if sampling.temperature <= 0:
        steps = [llama.llama_sampler_init_greedy()]
    else:
        steps = [
            llama.llama_sampler_init_top_k(sampling.top_k),
            llama.llama_sampler_init_top_p(sampling.top_p, 1),
            llama.llama_sampler_init_temp(sampling.temperature),
            llama.llama_sampler_init_dist(sampling.seed),
        ]
    for step in steps:
        llama.llama_sampler_chain_add(chain, step)
    return chain


class LogitsSampler:
    """llama.cpp's samplers over logits that another engine has computed."""

    def __init__(
        self, vocabulary: LlamaVocabulary, sampling: Sampling, row: Callable[[int], NDArray[np.float32]]
    ) -> None:
        """Choose from ``row(number)``, [vocabulary].

        Raises:
            InputError: llama.cpp doesn't understand the grammar.
        """
        self._row = row
        self._plain = sampling.temperature <= 0 and sampling.grammar is None
        self._chain = None if self._plain else sampler_chain(vocabulary.handle, sampling)

    def sample(self, row: int) -> int:
        """The next token, from a row of logits of the last decode."""
        import numpy as np

        logits = self._row(row)
        if self._plain:
            return int(logits.argmax())
        candidates = np.empty(len(logits), dtype=CANDIDATE)
        candidates["id"] = np.arange(len(logits), dtype=np.int32)
        candidates["logit"] = logits
        candidates["p"] = 0
        data = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(llama.llama_token_data))
        array = llama.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        llama.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the chain."""
        if self._chain:
            llama.llama_sampler_free(self._chain)
            self._chain = None


class VocabularyUser:
    """What both engines do through llama.cpp's vocabulary."""

    _vocabulary: LlamaVocabulary

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids; ``add_special`` puts BOS first where the model wants it."""
        return self._vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, none for special ones."""
        return self._vocabulary.piece(token)

    def is_end(self, token: int) -> bool:
        """Whether this token ends a generation."""
        return self._vocabulary.is_end(token)
