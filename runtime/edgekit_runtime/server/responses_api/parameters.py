"""Which fields of OpenAI's Responses API are known here, and what becomes of each."""

from __future__ import annotations

from edgekit_runtime.server.openai.parameters import BORROWED, NOTED, REFUSED
from edgekit_runtime.server.parameters import NOTHING, Parameter, neutral, table

_WHOLE = "send the whole conversation as input: nothing is stored here"

RESPONSE = table(
    BORROWED.values(),
    NOTED,
    REFUSED,
    neutral(
        background=False,
        background_options=(),
        truncation="disabled",
        max_tool_calls=(),
        moderation=(),
        access_programs=(),
        image=(),
        prompt_cache_options=(),
        n=1,
    ),
    [
        Parameter("previous_response_id", "not available", NOTHING, _WHOLE),
        Parameter("conversation", "not available", NOTHING, _WHOLE),
        Parameter("context_management", "not available", NOTHING, _WHOLE),
        Parameter("prompt", "not available", NOTHING, "send its text as instructions and input"),
        Parameter("response_format", "not available", NOTHING, "send text.format"),
        Parameter("messages", "not available", NOTHING, "send input, or use /v1/chat/completions"),
        Parameter("max_tokens", "not available", NOTHING, "send max_output_tokens"),
        Parameter("max_completion_tokens", "not available", NOTHING, "send max_output_tokens"),
        Parameter("reasoning_effort", "not available", NOTHING, "send reasoning.effort"),
        Parameter("model", "the adapter's name, or `base`"),
        Parameter("input", "a text, or items: messages, calls, their outputs, reasoning"),
        Parameter("instructions", "stands before the input, as the system's"),
        Parameter("max_output_tokens", "where to cut the answer off"),
        Parameter("stop", "texts that end the answer"),
        Parameter("stream", "piece by piece, as server-sent events"),
        Parameter("stream_options", "nothing of it changes anything"),
        Parameter("text", "`format`: `text`, `json_object`, or `json_schema` with a schema"),
        Parameter("reasoning", "`effort`: `none`, or `low`, `medium`, `high` where the base's template knows efforts"),
        Parameter("tools", "functions that the model may call, see [tools](tools.md)"),
        Parameter("tool_choice", "`auto`, `none`, `required`, or a function by name"),
        Parameter("parallel_tool_calls", "false: one call at most"),
        Parameter("include", "`message.output_text.logprobs`: log-probabilities of the answer's tokens"),
        Parameter("top_logprobs", "and of so many likeliest others"),
        Parameter("metadata", "comes back with the answer"),
        Parameter("store", "taken; nothing is stored, and the answer says `store: false`"),
    ],
)
TEXT = table([Parameter("format", "")], neutral(verbosity="medium"))
REASONING = table(
    [Parameter("effort", ""), Parameter("summary", ""), Parameter("generate_summary", "")],
    neutral(mode="standard", context=("auto", "all_turns")),
)
STREAM_OPTIONS = table(neutral(include_obfuscation=(True, False)))
