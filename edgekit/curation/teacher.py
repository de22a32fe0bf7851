"""A teacher: a larger model behind an OpenAI-compatible endpoint, asked through OpenAI's own client.

The client repeats what may go better the next time (429, 5xx, connections that break), waits longer each time, and
heeds Retry-After.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from edgekit_runtime.errors import InputError, TargetError, UsageError
from edgekit_runtime.prompts.chat import Message

log = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"
JSON_SCHEMA, JSON_OBJECT, PLAIN = "json_schema", "json_object", "none"
FORMATS = (JSON_SCHEMA, JSON_OBJECT, PLAIN)
RETRIES = 8  # about a minute in all
_NO_KEY = "none"  # the client wants one; servers on this machine ask for none
_SHOWN = 300
_NEW_LENGTH = "max_completion_tokens"


@dataclass(frozen=True)
class Reply:
    """What a teacher said.

    Attributes:
        text: the answer; None where there is none that can be read.
        tokens: of prompt and answer; None where the endpoint doesn't say.
        problem: why the answer can't be taken; None where it can.
    """

    text: str | None
    tokens: int | None
    problem: str | None = None


@dataclass(frozen=True)
class TeacherOptions:
    """How a teacher is asked.

    Attributes:
        endpoint: its address up to ``/v1``.
        model: its name there.
        key_variable: environment variable with the API key; the key itself is never written anywhere.
        response_format: how the endpoint is told what form an answer has: ``json_schema``, ``json_object``, ``none``.
        max_tokens: longest answer.
        temperature: None leaves it to the endpoint.
        timeout: seconds for one answer.
        retries: of a request that failed.
    """

    endpoint: str
    model: str
    key_variable: str = KEY_VARIABLE
    response_format: str = JSON_SCHEMA
    max_tokens: int = 1024
    temperature: float | None = None
    timeout: float = 300.0
    retries: int = RETRIES

    @property
    def shown(self) -> str:
        """The endpoint without a user or password."""
        parts = urlsplit(self.endpoint)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _is_private(endpoint: str) -> bool:
    """Whether nobody on the way can read what is sent: https, or this machine itself."""
    parts = urlsplit(endpoint)
    try:
        own = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        own = False
    return own or parts.scheme == "https"


class Teacher:
    """Asks; to be used inside ``async with``."""

    def __init__(self, options: TeacherOptions) -> None:
        """Nothing is sent before the first question.

        Raises:
            InputError: the endpoint is no http address.
            UsageError: the environment variable that was asked for is not set.
        """
        import openai

        if urlsplit(options.endpoint).scheme not in ("http", "https") or not urlsplit(options.endpoint).hostname:
            raise InputError(f"{options.shown!r} is no endpoint", "give an address such as http://127.0.0.1:8080/v1")
        self.options = options
        self._key = os.environ.get(options.key_variable) or _NO_KEY
        if self._key == _NO_KEY and options.key_variable != KEY_VARIABLE:
            raise UsageError(f"{options.key_variable} is not set", "put the API key into it, or leave --key-env out")
        if self._key != _NO_KEY and not _is_private(options.endpoint):
            log.warning("the API key goes to %s without encryption: use https", options.shown)
        self._length = "max_tokens"
        self._client = openai.AsyncOpenAI(
            api_key=self._key, base_url=options.endpoint, timeout=options.timeout, max_retries=options.retries
        )

    async def __aenter__(self) -> Teacher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> Reply:
        """One answer.

        Args:
            messages: the conversation.
            schema: JSON schema of the answer; None for text.

        Raises:
            TargetError: the endpoint refuses the request, or can't be reached however often it is tried.
        """
        import openai

        more: dict[str, Any] = {}
        if schema is not None and self.options.response_format == JSON_SCHEMA:
            more["response_format"] = {"type": JSON_SCHEMA, "json_schema": {"name": "row", "schema": schema}}
        elif schema is not None and self.options.response_format == JSON_OBJECT:
            more["response_format"] = {"type": JSON_OBJECT}
        if self.options.temperature is not None:
            more["temperature"] = self.options.temperature
        more[self._length] = self.options.max_tokens
        form: Any = list(messages)
        try:
            answer: Any = await self._client.chat.completions.create(model=self.options.model, messages=form, **more)
        except openai.BadRequestError as error:
            if _NEW_LENGTH not in str(error) or self._length == _NEW_LENGTH:
                raise self._refused(error.status_code, str(error.message)) from None
            self._length = _NEW_LENGTH  # OpenAI's newer models know no other, and many servers only the old one
            return await self.ask(messages, schema)
        except openai.APIStatusError as error:
            raise self._refused(error.status_code, str(error.message)) from None
        except openai.APIConnectionError as error:
            reason = self._told(str(error.__cause__ or error)) or type(error.__cause__ or error).__name__
            raise TargetError(
                f"the teacher at {self.options.shown} can't be reached ({reason})",
                "see that it runs; the same command goes on where this one stopped",
            ) from None
        except (openai.OpenAIError, ValueError) as error:  # a page of a proxy, half a body
            return Reply(None, None, f"the reply can't be read ({self._told(str(error))})")
        return _reply(answer)

    def _refused(self, status: int, message: str) -> TargetError:
        hints = {
            401: f"put its API key into the environment variable {self.options.key_variable}",
            403: f"put an API key that may do this into {self.options.key_variable}",
            404: "correct --endpoint (it mostly ends in /v1) or --model",
            400: "it may not know --response-format json_schema, or the schema: try json_object or none",
            422: "it may not know --response-format json_schema, or the schema: try json_object or none",
            429: "wait, or lower --concurrency; the same command goes on where this one stopped",
        }
        hint = hints.get(status, "the same command goes on where this one stopped")
        return TargetError(f"the teacher at {self.options.shown} says {status} ({self._told(message)})", hint)

    def _told(self, message: str) -> str:
        """What the endpoint says, in short, without the key."""
        text = " ".join(message.split())
        text = text if self._key == _NO_KEY else text.replace(self._key, "…")
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _reply(answer: Any) -> Reply:
    usage = getattr(answer, "usage", None)
    tokens = getattr(usage, "total_tokens", None)
    choices = getattr(answer, "choices", None)
    if not choices:
        return Reply(None, tokens, "the reply has no answer")
    said = choices[0].message
    if choices[0].finish_reason == "length":
        return Reply(None, tokens, "the answer was cut at --max-tokens")
    if choices[0].finish_reason == "content_filter" or getattr(said, "refusal", None):
        return Reply(None, tokens, "the teacher declined")
    if not isinstance(said.content, str) or not said.content.strip():
        return Reply(None, tokens, "the answer is empty")
    return Reply(said.content.strip(), tokens)
