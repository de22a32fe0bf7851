"""OpenAI's replies: from what the worker says to the documents that clients read."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.server.requests import Asked
from edgekit_runtime.server.tool_responses import answer_message

# A token with its log-probability and the likeliest others, as the worker sends them: bytes as lists of numbers.
Score = list[Any]
Result = dict[str, Any]


def reply(asked: Asked, results: list[Result], scores: list[list[Score]]) -> dict[str, Any]:
    """The whole answer, one choice for each prompt."""
    choices = []
    for index, (result, scored) in enumerate(zip(results, scores, strict=True)):
        choice: dict[str, Any] = {"index": index, "finish_reason": result["finish_reason"], "logprobs": None}
        if asked.chat:
            choice["message"] = answer_message(result)
            if asked.logprobs:
                choice["logprobs"] = chat_logprobs(scored)
        else:
            echoed = result["echoed"]
            prompt = b"".join(bytes(data) for data, _, _ in echoed)
            choice["text"] = prompt.decode(errors="replace") + result["text"]
            if asked.logprobs:
                choice["logprobs"] = completion_logprobs(echoed + scored)
        choices.append(choice)
    kind = "chat.completion" if asked.chat else "text_completion"
    timings = results[0]["timings"] if len(results) == 1 else [result["timings"] for result in results]
    return _envelope(asked, kind, choices) | {"usage": usage(results), "timings": timings}


def chunks(asked: Asked, deltas: list[dict[str, Any]], scores: list[Score]) -> list[dict[str, Any]]:
    """What a piece of a streamed chat brings, its scores with the first of it."""
    made = [chunk(asked, "", scores if number == 0 else []) for number in range(len(deltas) or bool(scores))]
    for each, delta in zip(made, deltas, strict=False):
        each["choices"][0]["delta"] = delta
    return made


def chunk(asked: Asked, text: str | None, scores: list[Score], finish_reason: str | None = None) -> dict[str, Any]:
    """A piece of a streamed answer; ``text`` None for the last, which says why it ended."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
    if asked.chat:
        choice["delta"] = {} if text is None else {"content": text}
        if scores:
            choice["logprobs"] = chat_logprobs(scores)
    else:
        choice["text"] = text or ""
        if scores:
            choice["logprobs"] = completion_logprobs(scores)
    return _envelope(asked, _chunk_kind(asked), [choice])


def first_chunk(asked: Asked) -> dict[str, Any]:
    """What a streamed chat begins with."""
    delta = {"role": "assistant", "content": ""}
    return _envelope(asked, _chunk_kind(asked), [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}])


def usage_chunk(asked: Asked, result: Result) -> dict[str, Any]:
    """The last piece, when ``stream_options.include_usage`` asks for it."""
    return _envelope(asked, _chunk_kind(asked), []) | {"usage": usage([result]), "timings": result["timings"]}


def usage(results: list[Result]) -> dict[str, Any]:
    """Token counts of all prompts together."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    sums: dict[str, Any] = {name: sum(result["usage"][name] for result in results) for name in names}
    cached = sum(result["usage"]["cached_tokens"] for result in results)
    return sums | {"prompt_tokens_details": {"cached_tokens": cached}}


def error_document(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def chat_logprobs(scores: list[Score]) -> dict[str, Any]:
    """Log-probabilities as chat completions have them."""

    def one(data: list[int], logprob: float | None) -> dict[str, Any]:
        return {"token": _spell(data), "logprob": logprob, "bytes": data}

    content = [
        one(data, logprob) | {"top_logprobs": [one(*other) for other in others]} for data, logprob, others in scores
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(scores: list[Score]) -> dict[str, Any]:
    """Log-probabilities as plain completions have them; the chosen token is among the likeliest, as at OpenAI."""
    tokens = [_spell(data) for data, _, _ in scores]
    offsets = [sum(map(len, tokens[:number])) for number in range(len(tokens))]
    top: list[dict[str, float] | None] = []
    for token, (_, logprob, others) in zip(tokens, scores, strict=True):
        likeliest = {_spell(data): other for data, other in reversed(others)}
        top.append(None if logprob is None else {token: logprob} | likeliest)
    return {
        "tokens": tokens,
        "token_logprobs": [logprob for _, logprob, _ in scores],
        "top_logprobs": top,
        "text_offset": offsets,
    }


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
    }
