"""OpenAI's replies: from what the worker says to the documents that clients read."""

from __future__ import annotations

import codecs
from typing import Any

from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.openai.tool_responses import answer_message

# A token with its log-probability and the likeliest others, as the worker sends them: bytes as lists of numbers.
Score = list[Any]
Result = dict[str, Any]


def reply(asked: Asked, results: list[Result], scores: list[list[Score]]) -> dict[str, Any]:
    """The whole answer, the choices of each prompt in turn."""
    choices = []
    for index, (result, scored) in enumerate(zip(results, scores, strict=True)):
        choice: dict[str, Any] = {"index": index, "finish_reason": result["finish_reason"], "logprobs": None}
        if asked.chat:
            choice["message"] = answer_message(result, reasons=asked.reasons)
            if asked.logprobs:
                choice["logprobs"] = chat_logprobs(scored)
        else:
            echoed = result["echoed"]
            choice["text"] = _text_of(echoed) + result["text"]
            if asked.logprobs:
                choice["logprobs"] = completion_logprobs(echoed + scored, Offsets())
        choices.append(choice)
    kind = "chat.completion" if asked.chat else "text_completion"
    return _envelope(asked, kind, choices) | _figures(asked, results)


def chunks(asked: Asked, index: int, deltas: list[dict[str, Any]], scores: list[Score]) -> list[dict[str, Any]]:
    """What a piece of a streamed chat brings, its scores with the first of it."""
    told = [each for each in deltas if asked.reasons or "reasoning_content" not in each]
    made = [chunk(asked, index, "", scores if number == 0 else []) for number in range(len(told) or bool(scores))]
    for each, delta in zip(made, told, strict=False):
        each["choices"][0]["delta"] = delta
    return made


def chunk(
    asked: Asked,
    index: int,
    text: str | None,
    scores: list[Score],
    finish_reason: str | None = None,
    offsets: Offsets | None = None,
) -> dict[str, Any]:
    """A piece of a streamed choice; ``text`` None for the last, which says why it ended.

    ``offsets`` counts the text of a completion up to here.
    """
    choice: dict[str, Any] = {"index": index, "finish_reason": finish_reason, "logprobs": None}
    if asked.chat:
        choice["delta"] = {} if text is None else {"content": text}
        if scores:
            choice["logprobs"] = chat_logprobs(scores)
    else:
        choice["text"] = text or ""
        if scores:
            choice["logprobs"] = completion_logprobs(scores, offsets or Offsets())
    return _envelope(asked, _chunk_kind(asked), [choice])


def echoed_in(event: dict[str, Any]) -> list[Score]:
    """The prompt's tokens, where an event of a stream brings them: its first text, or its end."""
    found: list[Score] = event["value"]["echoed"] if event["op"] == "done" else event.get("echoed", [])
    return found


def echo_chunk(asked: Asked, index: int, echoed: list[Score], offsets: Offsets) -> dict[str, Any]:
    """The prompt, before its completion."""
    return chunk(asked, index, _text_of(echoed), echoed if asked.logprobs else [], offsets=offsets)


def first_chunk(asked: Asked, index: int) -> dict[str, Any]:
    """What a streamed choice of a chat begins with."""
    choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}
    return _envelope(asked, _chunk_kind(asked), [choice])


def progress_chunk(asked: Asked, index: int, event: dict[str, Any]) -> dict[str, Any]:
    """How much of the prompt has been read, as llama-server tells it."""
    told = {"total": event["total"], "cache": event["cached"], "processed": event["processed"]}
    return chunk(asked, index, "", []) | {"prompt_progress": told | {"time_ms": event["ms"]}}


def usage_chunk(asked: Asked, results: list[Result]) -> dict[str, Any]:
    """The last piece, when ``stream_options.include_usage`` asks for it."""
    return _envelope(asked, _chunk_kind(asked), []) | _figures(asked, results)


def _figures(asked: Asked, results: list[Result]) -> dict[str, Any]:
    timings = results[0]["timings"] if len(results) == 1 else [result["timings"] for result in results]
    return {"usage": usage(results, asked.n), "timings": timings}


def usage(results: list[Result], n: int = 1) -> dict[str, Any]:
    """Token counts of all prompts, each of which has ``n`` answers and counts once."""
    read = sum(result["usage"]["prompt_tokens"] for result in results[::n])
    cached = sum(result["usage"]["cached_tokens"] for result in results[::n])
    written = sum(result["usage"]["completion_tokens"] for result in results)
    reasoning = sum(result["usage"].get("reasoning_tokens", 0) for result in results)
    details = {"completion_tokens_details": {"reasoning_tokens": reasoning}} if reasoning else {}
    return details | {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def chat_logprobs(scores: list[Score]) -> dict[str, Any]:
    """Log-probabilities as chat completions have them."""

    def one(data: list[int], logprob: float | None) -> dict[str, Any]:
        return {"token": _spell(data), "logprob": logprob, "bytes": data}

    content = [
        one(data, logprob) | {"top_logprobs": [one(*other) for other in others]} for data, logprob, others in scores
    ]
    return {"content": content, "refusal": None}


class Offsets:
    """Where tokens begin in the text of a completion, in characters; a stream's pieces go on counting."""

    def __init__(self) -> None:
        """Stand at its beginning."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def of(self, data: list[int]) -> int:
        """That of the next token; one that goes on with a character begins where that does."""
        found = self._at
        self._at += len(self._decoder.decode(bytes(data)))
        return found


def completion_logprobs(scores: list[Score], offsets: Offsets) -> dict[str, Any]:
    """Log-probabilities as plain completions have them; the chosen token is among the likeliest, as at OpenAI."""
    tokens = [_spell(data) for data, _, _ in scores]
    top: list[dict[str, float] | None] = []
    for token, (_, logprob, others) in zip(tokens, scores, strict=True):
        likeliest = {_spell(data): other for data, other in reversed(others)}
        top.append(None if logprob is None else {token: logprob} | likeliest)
    return {
        "tokens": tokens,
        "token_logprobs": [logprob for _, logprob, _ in scores],
        "top_logprobs": top,
        "text_offset": [offsets.of(data) for data, _, _ in scores],
    }


def _text_of(scores: list[Score]) -> str:
    return b"".join(bytes(data) for data, _, _ in scores).decode(errors="replace")


def _spell(data: list[int]) -> str:
    """A token as text; as OpenAI spells them, when its bytes are only a part of a character."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _chunk_kind(asked: Asked) -> str:
    return "chat.completion.chunk" if asked.chat else "text_completion"


def _envelope(asked: Asked, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    prefix = "chatcmpl" if asked.chat else "cmpl"
    return {
        "id": f"{prefix}-{asked.id}",
        "object": kind,
        "created": asked.created,
        "model": asked.model,
        "choices": choices,
        **asked.told_route,
    }
