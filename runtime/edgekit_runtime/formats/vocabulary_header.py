"""What the vocabulary in a GGUF has to hold before llama.cpp reads it.

Its tokenisers look tokens up that have to be there, and end the process when they are not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS, end_tokens_of
from edgekit_runtime.formats.gguf import GgufFile

TOKENIZER = "tokenizer.ggml"
# Kind -> the ids of BOS and EOS where the file names none.
PIECES, PAIRS = "llama", ("gpt2", "gemma4")
DEFAULTS: dict[str, tuple[int | None, int | None]] = {PIECES: (1, 2), "gpt2": (11, 11), "gemma4": (None, None)}
OTHER_KINDS = ("hybriddna", "whitespace", "rwkv", "plamo2")  # whose tables the engine itself looks at
BOS_UNASKED = """
    llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken chameleon gemma4
    granite-embed-multi-311m
    """
# Padding is left out: nothing here pads, and converters are known to write ids that there aren't.
SPECIAL = ("bos", "eos", "eot", "eom", "unknown")
# UTF-8 has no other bytes.
BYTES = (*range(0xC0), *range(0xC2, 0xF5))
BYTE_TYPE = 6  # LLAMA_TOKEN_TYPE_BYTE
UNREADABLE = "\ufffd"
LONGEST_TOKEN = 65_536  # characters


def check_vocabulary(header: GgufFile) -> None:
    """Check a vocabulary; the types of its keys are checked.

    Raises:
        InputError: llama.cpp would end the process over it, or refuse it.
    """
    metadata = header.metadata
    kind = metadata.get(f"{TOKENIZER}.model")
    if kind not in (*DEFAULTS, *OTHER_KINDS):
        _fail(
            header, "it has no tokenizer" if kind is None else f"its tokenizer is {shown(kind)}, which writes no text"
        )
    tokens: list[str] = metadata.get(f"{TOKENIZER}.tokens", [])
    if not tokens:
        _fail(header, "its vocabulary is empty")
    for name in ("scores", "token_type"):
        found = metadata.get(f"{TOKENIZER}.{name}")
        if found is not None and len(found) < len(tokens):
            _fail(header, f"it has {len(tokens)} tokens, and {len(found)} {TOKENIZER}.{name}")
    if kind in PAIRS and f"{TOKENIZER}.merges" not in metadata and metadata.get(f"{TOKENIZER}.pre") != "kimi-k2":
        _fail(header, f"it has no {TOKENIZER}.merges")
    _check_tokens(header, tokens, of_pieces=kind == PIECES)
    for token, type_ in zip(tokens, metadata.get(f"{TOKENIZER}.token_type", ()), strict=False):
        if type_ == BYTE_TYPE and not re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
            _fail(header, f"the token {shown(token)} is said to be a byte")
    for name in SPECIAL:
        number = metadata.get(f"{TOKENIZER}.{name}_token_id", 0)
        if number >= len(tokens):
            _fail(header, f"{TOKENIZER}.{name}_token_id is {number}, and it has {len(tokens)} tokens")
    if kind in DEFAULTS:
        _check_ends(header, kind, len(tokens))
    end_tokens_of(metadata.get(KEY_END_TOKENS), len(tokens), header.path)


def _check_tokens(header: GgufFile, tokens: Sequence[str], *, of_pieces: bool) -> None:
    """As llama.cpp sees them: up to a NUL, and empty ones by their number."""
    seen = [token.split("\0", 1)[0] or f"[EMPTY_{number}]" for number, token in enumerate(tokens)]
    known = set(seen)
    if len(known) < len(seen):
        known.clear()
        for token in seen:
            if token in known and UNREADABLE not in token:
                _fail(header, f"the token {shown(token)} stands twice in its vocabulary")
            known.add(token)
    if max(map(len, seen)) > LONGEST_TOKEN:
        _fail(header, f"a token is longer than {LONGEST_TOKEN} characters")
    if of_pieces:
        missing = [
            each for each in BYTES if f"<0x{each:02X}>" not in known and not (0 < each < 0x80 and chr(each) in known)
        ]
        if missing:
            _fail(header, f"its vocabulary has no token for the byte 0x{missing[0]:02X}")


def _check_ends(header: GgufFile, kind: str, count: int) -> None:
    """What is put around each text has to be there."""
    metadata = header.metadata
    asked_anyway = kind == PIECES or kind == "gemma4" or str(metadata.get(f"{TOKENIZER}.pre")) in BOS_UNASKED.split()
    for name, default, added in zip(("bos", "eos"), DEFAULTS[kind], (asked_anyway, False), strict=True):
        if not metadata.get(f"{TOKENIZER}.add_{name}_token", added):
            continue
        number = metadata.get(f"{TOKENIZER}.{name}_token_id", default)
        if number is None or number >= count:
            _fail(header, f"{TOKENIZER}.add_{name}_token asks for a token that it doesn't have")


def _fail(header: GgufFile, problem: str) -> NoReturn:
    raise InputError(f"{header.path} is not a sound base: {problem}", "copy or export it again")
