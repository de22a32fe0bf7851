"""Which fields of OpenAI's Responses API are known here, and what becomes of each."""

from __future__ import annotations

from edgekit_runtime.server.openai.parameters import BORROWED, NOTED, REFUSED
from edgekit_runtime.server.parameters import Parameter, neutral, table, unavailable

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
        *unavailable(
            previous_response_id=_WHOLE,
            conversation=_WHOLE,
            context_management=_WHOLE,
            prompt="send its text as instructions and input",
            response_format="send text.format",
            messages="send input, or use /v1/chat/completions",
            max_tokens="send max_output_tokens",
            max_completion_tokens="send max_output_tokens",
            reasoning_effort="send reasoning.effort",
        ),
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
        Parameter("tool_choice", "`auto`, `none`, `required`, a function by name, or `allowed_tools`"),
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
