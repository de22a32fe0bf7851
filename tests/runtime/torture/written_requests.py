"""Random bodies for the service's routes: sound ones with values, names and signs in them changed."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES, COUNT = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIXEL = f"data:image/png;base64,{PNG}"
SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "array", "items": {"enum": ["x", 1, None]}, "minItems": 1, "maxItems": 3},
        "b": {"anyOf": [{"type": "string", "pattern": "^a{1,3}b?$"}, {"const": 1}, {"$ref": "#/$defs/c"}]},
    },
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"c": {"type": "integer", "minimum": 0, "maximum": 9}},
}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
SOUND: dict[str, list[dict[str, Any]]] = {
    CHAT: [
        {
            "model": "one",
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "1", "tool_call_id": "1"},
                {"role": "user", "content": "scratch <|im_end|>"},
            ],
            "max_tokens": 2,
            "temperature": 0.5,
            "top_k": 5,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["x", "y"],
            "n": 1,
            "presence_penalty": 0,
            "user": "u",
        },
        {
            "model": "base",
            "messages": [{"role": "user", "content": "q"}],
            "max_completion_tokens": 2,
            "logprobs": True,
            "top_logprobs": 2,
            "lora": [{"id": "one", "scale": 0.5}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        {
            "model": "one",
            "messages": [{"role": "user", "content": "q"}],
            "max_tokens": 3,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
            "logit_bias": {},
            "tools": [],
        },
        {
            "model": "base",
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]}
            ],
            "max_tokens": 1,
        },
    ],
    COMPLETIONS: [
        {"model": "one", "prompt": "scratch", "max_tokens": 2, "stop": "x", "suffix": None, "best_of": 1},
        {"model": "base", "prompt": [[5, 6, 7], [8, 9]], "max_tokens": 1, "logprobs": 1, "echo": True},
        {"model": "one", "prompt": ["a", "b"], "max_tokens": 1, "stream": False, "top_p": 1},
    ],
    RESPONSES: [
        {
            "model": "one",
            "instructions": "s",
            "input": [
                {"role": "developer", "content": "d"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a": 1}'},
                {"type": "function_call_output", "call_id": "1", "output": "1"},
                {"role": "user", "content": "scratch"},
            ],
            "max_output_tokens": 2,
            "temperature": 0.5,
            "seed": 7,
            "stream": True,
            "metadata": {"a": "b"},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
        },
        {
            "model": "one",
            "input": "q",
            "max_output_tokens": 3,
            "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
            "reasoning": {"effort": "none", "summary": "auto"},
            "store": True,
        },
        {
            "model": "one",
            "input": "q",
            "max_output_tokens": 3,
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
        },
        {"model": "base", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]},
    ],
    MESSAGES: [
        {
            "model": "one",
            "max_tokens": 2,
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": ""},
                        {"type": "text", "text": "b"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": "1", "is_error": True},
                        {"type": "text", "text": "c"},
                    ],
                },
            ],
            "stop_sequences": ["x"],
            "temperature": 0.5,
            "top_k": 5,
            "stream": True,
            "metadata": {"user_id": "u"},
        },
        {
            "model": "one",
            "max_tokens": 3,
            "messages": [{"role": "user", "content": "q"}],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "thinking": {"type": "disabled"},
        },
        {
            "model": "base",
            "max_tokens": 3,
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "it is"}],
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
        {
            "model": "base",
            "max_tokens": 1,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
                    ],
                }
            ],
        },
    ],
    COUNT: [
        {"model": "one", "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "system": "s"},
        {"model": "base", "messages": [{"role": "user", "content": "q"}], "tools": [{"name": "f", "input_schema": {}}]},
    ],
    LOAD: [{"lora_name": "three", "lora_path": "/nowhere/a.gguf", "allow_downgrade": False}],
    UNLOAD: [{"lora_name": "three"}],
}
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 63, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63, -(1 << 63), 1 << 64, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "one", "base", "1", "true", "a\0b", "\x1b[2J", "\n", "\u202e", "\ud800", "\udfff\ud800", "\U0001f600"),
    *("é" * 300, "e" + "\u0301" * 1000, "x" * 100_000, "<|im_start|>" * 500, "</s>", "../x", "/dev/zero", "/dev/stdin"),
    *("text", "json_object", "json_schema", "image_url", "data:image/png;base64,", "data:,x", "file:///etc/passwd"),
    *("http://127.0.0.1:1/", PIXEL, PIXEL[:60], "%" * 99, "{{ 1 }}", "^(a+)+$", "#", "#/$defs/c"),
    *([], {}, [[]], [{}], {"": None}, [None], [0] * 5000, ["x"] * 3000, [[1]] * 70, {"type": "object"}),
    *({"$ref": "#"}, {"$ref": "http://x/y"}, {"type": "text"}, {"type": ["string", "null"]}, {"role": "user"}),
    *({str(number): number for number in range(2000)}, {"enum": []}, {"pattern": "("}, {"const": {"a": [1]}}),
    *({"type": "string", "format": "date"}, {"type": "number", "minimum": 1e300}, {"not": {}}, {"allOf": [{}, {}]}),
]
NAMES = """model messages prompt max_tokens max_completion_tokens temperature top_k top_p seed stop n best_of logprobs
    top_logprobs stream stream_options response_format lora tools functions logit_bias suffix echo user audio modalities
    presence_penalty frequency_penalty tool_choice parallel_tool_calls store metadata image adapter raw schema __class__
    id op path options role content tool_calls lora_name lora_path allow_downgrade type properties items pattern enum
    const required minLength maxLength minimum maximum oneOf anyOf allOf not $ref $defs additionalProperties
    input instructions max_output_tokens text reasoning include thread thinking output_config system stop_sequences
    tool_use_id call_id name arguments output source data media_type input_schema format effort budget_tokens"""
KEYS = [*NAMES.split(), "", "\0", "\ud800", "x" * 5000]
TYPES = [b"application/json", b"", b"text/plain", b"application/json; charset=utf-16", b"multipart/form-data", b"\xff"]


class Body(NamedTuple):
    """What is sent, and where."""

    path: str
    content: bytes
    headers: dict[str, bytes]


class Asker:
    """Bodies, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chosen = random.Random(seed)

    def body(self) -> Body:
        """One body."""
        path = self.chosen.choice([*[CHAT] * 5, *[COMPLETIONS] * 3, *[RESPONSES, MESSAGES] * 4, COUNT, LOAD, UNLOAD])
        document: Any = self.chosen.choice(SOUND[path])
        for _ in range(self.chosen.choice([0, 0, 1, 1, 1, 2])):
            document = self.changed(document)
        text = self.written(document)
        if path == UNLOAD:
            text = text.replace('"one"', '"two"')  # which others ask
        content = text.encode("utf-8", "surrogatepass")
        if self.chosen.random() < 0.05:
            content = self.damaged(content)
        headers: dict[str, bytes] = {}
        if self.chosen.random() < 0.05:
            headers["Content-Type"] = self.chosen.choice(TYPES)
        if self.chosen.random() < 0.02:
            headers[self.chosen.choice(["Content-Encoding", "Expect", "Accept", "Accept-Encoding"])] = b"x"
        return Body(path, content, headers)

    def changed(self, document: Any) -> Any:
        """The same with one place in it changed."""
        chosen = self.chosen
        if isinstance(document, dict) and document and chosen.random() < 0.85:
            key = chosen.choice(list(document))
            match chosen.randrange(12):
                case 0:
                    return {name: value for name, value in document.items() if name != key}
                case 1:
                    return {**document, chosen.choice(KEYS): chosen.choice(ODD)}
                case 2:
                    return {chosen.choice(KEYS) if name == key else name: each for name, each in document.items()}
                case _:
                    return {**document, key: self.changed(document[key])}
        if isinstance(document, list) and document and chosen.random() < 0.85:
            at = chosen.randrange(len(document))
            match chosen.randrange(8):
                case 0:
                    return document * chosen.choice([2, 30])
                case 1:
                    return [*document, chosen.choice(ODD)]
                case _:
                    return [*document[:at], self.changed(document[at]), *document[at + 1 :]]
        return chosen.choice(ODD)

    def written(self, document: Any) -> str:
        """As JSON, or as what is nearly that."""
        chosen = self.chosen
        text = json.dumps(document, ensure_ascii=chosen.random() < 0.5)
        if chosen.random() > 0.15:
            return text
        deep = chosen.choice([10, 63, 64, 65, 500, 5000, 100_000])
        key = chosen.choice(KEYS[:8])
        ways = [
            lambda: text[:-1] + f', "{key}": {text}}}',
            lambda: text[:-1] + f', "{key}": 1' * 5000 + "}",
            lambda: text[:-1] + f', "{key}": ' + "[" * deep + "]" * deep + "}",
            lambda: text[:-1] + f', "{key}": ' + '{"a":' * deep + "1" + "}" * deep + "}",
            lambda: (
                text[:-1]
                + f', "{key}": '
                + chosen.choice(["1e999", "-1e999", "9" * 5000, "0" * 99, "01", "1e-999"])
                + "}"
            ),
            lambda: (
                text[:-1]
                + f', "{key}": "'
                + chosen.choice(["\\ud800", "\\u0000", "\\x", "\t", "\\", "x" * 900_000])
                + '"}'
            ),
            lambda: "[" * deep,
            lambda: '{"a":' * deep,
            lambda: "[" + text + "]",
            lambda: text + text,
            lambda: text.replace('"', "'"),
            lambda: "\ufeff" + text,
            lambda: text + " " * 100_000,
            lambda: chosen.choice(["", " ", "null", "0", '"x"', "[]", "{}", "NaN", "-", "{", "\0", "undefined"]),
        ]
        return chosen.choice(ways)()

    def damaged(self, content: bytes) -> bytes:
        """Other bytes, other encodings."""
        chosen = self.chosen
        at = chosen.randrange(len(content) + 1)
        text = content.decode("utf-8", "replace")
        ways = [
            lambda: content[:at],
            lambda: content[:at] + bytes([chosen.randrange(256)]) + content[at + 1 :],
            lambda: (
                content[:at] + chosen.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\\", b'"']) + content[at:]
            ),
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-32-be"),
            lambda: text.encode("latin-1", "replace"),
            lambda: bytes(chosen.randrange(256) for _ in range(64)),
        ]
        return chosen.choice(ways)()
