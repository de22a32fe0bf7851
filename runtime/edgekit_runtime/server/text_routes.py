"""Texts to token ids and back, and conversations to prompts: as vLLM's and llama.cpp's clients ask for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgekit_runtime.errors import InputError
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.parameters import DETOKENIZE, TEMPLATE, TOKENIZE, check, header_of
from edgekit_runtime.server.supervisor import Supervisor

MOST_TOKENS = 1 << 17  # to be spelt at once
Document = dict[str, Any]


class TextRoutes:
    """Asks the engine's process what its base makes of texts."""

    def __init__(self, supervisor: Supervisor, read: Callable[[Request], Awaitable[Document]]) -> None:
        """Bodies are read by ``read``."""
        self._supervisor, self._read = supervisor, read

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text (vLLM's ``prompt``, llama.cpp's ``content``), or of a conversation's prompt."""
        document = await self._read(request)
        ignored, fields = check(document, TOKENIZE), Fields(document)
        given = [name for name in ("prompt", "content", "messages") if document.get(name) is not None]
        if len(given) != 1:
            raise InputError("there has to be one of prompt, content and messages", "send one of them")
        if given == ["messages"]:
            tokens = await self._supervisor.inspect("encode", _conversation(document, fields))
        else:
            options = {"text": fields.text(given[0]), **_marks(fields, given[0])}
            tokens = await self._supervisor.inspect("tokenize", options)
        pieces = fields.flag("with_pieces") is True
        strings = pieces or fields.flag("return_token_strs") is True
        spelt = await self._supervisor.inspect("pieces", {"tokens": tokens}) if strings else []
        found: Document = {"count": len(tokens), "max_model_len": (self._supervisor.bundle or {}).get("context")}
        found["tokens"] = tokens
        if pieces:
            found["tokens"] = [{"id": token, "piece": _piece(data)} for token, data in zip(tokens, spelt, strict=True)]
        found["token_strs"] = [bytes(each).decode(errors="replace") for each in spelt] if strings else None
        return JSONResponse(found, headers=header_of(ignored))

    async def detokenize(self, request: Request) -> Response:
        """The text that token ids spell, under the names of vLLM and of llama.cpp."""
        document = await self._read(request)
        ignored, tokens = check(document, DETOKENIZE), document.get("tokens")
        if not isinstance(tokens, list) or not all(type(each) is int for each in tokens):
            raise InputError("tokens has to be a list of token ids", 'send "tokens": [1, 2, 3]')
        if len(tokens) > MOST_TOKENS:
            raise InputError(f"there are {len(tokens)} tokens", f"send at most {MOST_TOKENS} at once")
        spelt = await self._supervisor.inspect("pieces", {"tokens": tokens})
        text = b"".join(map(bytes, spelt)).decode(errors="replace")
        return JSONResponse({"prompt": text, "content": text}, headers=header_of(ignored))

    async def template(self, request: Request) -> Response:
        """The prompt that a conversation becomes, as text."""
        document = await self._read(request)
        ignored = check(document, TEMPLATE)
        prompt = await self._supervisor.inspect("render", _conversation(document, Fields(document)))
        return JSONResponse({"prompt": prompt}, headers=header_of(ignored))

    async def tokenizer(self, _: Request) -> Response:
        """What the base says of its tokenizer."""
        return JSONResponse(await self._supervisor.inspect("facts", {}))


def _conversation(document: Document, fields: Fields) -> Document:
    """The arguments of Texts.render."""
    messages = document.get("messages")
    if not isinstance(messages, list):
        raise InputError("messages has to be a list", "send at least one with role user")
    return {
        "messages": messages,
        "tools": fields.listed("tools") or [],
        "adapter": fields.text("model"),
        "add_generation_prompt": fields.flag("add_generation_prompt"),
        "continue_final_message": fields.flag("continue_final_message"),
        "chat_template_kwargs": fields.object("chat_template_kwargs"),
    }


def _marks(fields: Fields, name: str) -> dict[str, bool]:
    """Whether control tokens are added and read; the defaults are those of the service whose name the text has."""
    add = fields.flag("add_special_tokens") if name == "prompt" else fields.flag("add_special")
    read = fields.flag("parse_special")
    return {"add_special": name == "prompt" if add is None else add, "parse_special": read is not False}


def _piece(data: list[int]) -> str | list[int]:
    """A token's text; its bytes where they are no whole characters, as llama.cpp has it."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        return data
