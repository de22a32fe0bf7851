"""A tokeniser, through llama.cpp: of a whole model, or of a GGUF file that holds a vocabulary alone.

Every engine reads text with this code, so that the same bundle in another format sees the same prompts and keeps to the
same grammars.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as llama

from edgekit_runtime.constraints import Matcher, Tokens
from edgekit_runtime.engines.llama.library import clear_errors, reason, start_backend
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS, MOST_BYTES, end_tokens_of

MAX_PIECE_BYTES = 512


class LlamaVocabulary:
    """Tokens of one model."""

    def __init__(self, model: Any, *, owned: bool = False) -> None:
        """Look at ``model``'s vocabulary; an owned model is freed with it.

        Raises:
            InputError: its metadata names tokens that end an answer, and there are no such.
        """
        self.handle = llama.llama_model_get_vocab(model)
        self.size = int(llama.llama_vocab_n_tokens(self.handle))
        self._model = model if owned else None
        self._ends = end_tokens_of(_metadata(model, KEY_END_TOKENS), self.size, "the base")
        self._tokens: Tokens | None = None
        self._reading = threading.Lock()

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
        buffer = ctypes.create_string_buffer(MAX_PIECE_BYTES)  # of this call: any thread may ask
        length = llama.llama_token_to_piece(self.handle, token, buffer, MAX_PIECE_BYTES, 0, False)
        return buffer.raw[: max(length, 0)]

    def spelt(self, token: int) -> bytes:
        """The bytes of a token; of a special one, those that spell it."""
        return self.piece(token) or llama.llama_vocab_get_text(self.handle, token) or b""

    def is_end(self, token: int) -> bool:
        """Whether this token ends a generation, by the vocabulary's marks or by the base's own list."""
        return token in self._ends or self.marks_end(token)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end a generation."""
        return tuple(token for token in range(self.size) if self.is_end(token))

    def marks_end(self, token: int) -> bool:
        """Whether llama.cpp by itself takes this token for an end."""
        return bool(llama.llama_vocab_is_eog(self.handle, token))

    def matcher(self, grammar: str) -> Matcher:
        """What holds one answer to a grammar of llguidance's; any thread may ask.

        Raises:
            InputError: llguidance refuses it or is not installed.
        """
        with self._reading:
            if self._tokens is None:
                self._tokens = self._read_tokens()
        return Matcher(self._tokens, grammar)

    def _read_tokens(self) -> Tokens:
        """All tokens."""
        buffer = ctypes.create_string_buffer(MAX_PIECE_BYTES)
        pieces, control, ends = [], [], []
        for token in range(self.size):
            length = llama.llama_token_to_piece(self.handle, token, buffer, MAX_PIECE_BYTES, 0, False)
            piece = buffer.raw[: max(length, 0)]
            if self.is_end(token):
                ends.append(token)
            if not piece or self.is_end(token):
                control.append(token)
                piece = llama.llama_vocab_get_text(self.handle, token) or b""
            pieces.append(piece)
        return Tokens(pieces, control=control, ends=ends, tokenize=lambda text: self.tokenize(text, add_special=False))

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
