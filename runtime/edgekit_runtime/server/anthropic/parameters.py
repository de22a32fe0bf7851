"""Which fields of Anthropic's Messages API are known here, and what becomes of each."""

from __future__ import annotations

from edgekit_runtime.server.openai.parameters import BORROWED, NOTED, REFUSED
from edgekit_runtime.server.parameters import Parameter, neutral, table, unavailable

THREADLESS = "send the whole conversation: nothing is stored here"
MESSAGES = table(
    BORROWED.values(),
    NOTED,
    REFUSED,
    neutral(
        billing_policy=(),
        compaction=(),
        container=(),
        context_management=(),
        diagnostics=(),
        fallbacks=(),
        fallback_credit_token=(),
        inference_geo=(),
        mcp_servers=(),
        speed="standard",
        service_tier=("auto", "standard_only"),
        n=1,
    ),
    [
        *unavailable(
            thread=THREADLESS,
            stop="send stop_sequences",
            response_format="send output_config.format",
            reasoning_effort="send output_config.effort",
            max_completion_tokens="send max_tokens",
            output_format="send output_config.format",
        ),
        Parameter("model", "the adapter's name, or `base`"),
        Parameter("max_tokens", "where to cut the answer off; it has to be there"),
        Parameter("messages", "turns of text, images, calls and their results; an answer goes on from the assistant's"),
        Parameter("system", "a text, or blocks of text"),
        Parameter("stop_sequences", "texts that end the answer"),
        Parameter("stream", "piece by piece, as server-sent events"),
        Parameter("tools", "functions that the model may call, see [tools](tools.md)"),
        Parameter("tool_choice", "`auto`, `any`, `tool` or `none`, and `disable_parallel_tool_use`"),
        Parameter(
            "thinking",
            "`enabled` with `budget_tokens`, `disabled`; `adaptive` and none: what the adapter was trained for;"
            " `display: omitted` leaves it out of the answer",
        ),
        Parameter(
            "output_config", "`format`: `json_schema` with a schema; `effort` where the base's template knows it"
        ),
        Parameter("cache_control", "taken; nothing depends on it: what is the same is read once"),
        Parameter("user_profile_id", "taken; nothing depends on it"),
        Parameter("workspace_id", "taken; nothing depends on it"),
    ],
)
TOOL_CHOICE = table([Parameter(name, "") for name in ("type", "name", "disable_parallel_tool_use")])
THINKING = table([Parameter(name, "") for name in ("type", "budget_tokens", "display")])
OUTPUT_CONFIG = table([Parameter(name, "") for name in ("effort", "format")], neutral(task_budget=()))
