"""Which fields OpenAI's chat completions and completions have here, with those of vLLM and llama.cpp's server."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.server.parameters import Parameter, neutral, table, unavailable

LORA = Parameter("lora", 'adapters and scales for this request: `[{"id": NAME, "scale": 0.5}]`')
ASKED = [
    Parameter("model", "the adapter's name, or `base`"),
    Parameter("stream", "piece by piece, as server-sent events"),
    Parameter("stream_options", "`include_usage`: counts at the end of a stream"),
    Parameter("return_progress", "with `stream`: llama-server's `prompt_progress` while the prompt is read"),
    Parameter("stop", "texts that end the answer"),
    LORA,
]
SAMPLING = [
    Parameter("temperature", "0 is greedy; the adapter's own value when it is missing"),
    Parameter("top_k", "sample from so many likeliest tokens; 0 and -1 mean all"),
    Parameter("top_p", "sample from the likeliest tokens that have this probability together"),
    Parameter("min_p", "sample from tokens that have this share of the likeliest one's probability"),
    Parameter("seed", "same seed, same answer; -1 and none mean a fresh one"),
    Parameter("n", "so many answers to each prompt, with the seeds `seed`, `seed` + 1, …"),
    Parameter("repetition_penalty", "over 1: tokens of prompt and answer become less likely"),
    Parameter("repeat_penalty", "llama-server's name of it"),
    Parameter("repeat_last_n", "only so many last tokens of prompt and answer; -1 (the default) means all"),
    Parameter("frequency_penalty", "-2 to 2, for each time that the answer has a token"),
    Parameter("presence_penalty", "-2 to 2, once for each token that the answer has"),
    Parameter("logit_bias", "by token id, -100 to 100"),
    Parameter("ignore_eos", "go on until `max_tokens`; with a schema or the like, until it ends"),
    Parameter("min_tokens", "no end before so many tokens; likewise"),
]
FORMS = [
    Parameter("response_format", "`json_object`, or `json_schema` with a schema"),
    Parameter("structured_outputs", "vLLM's: one of `json`, `regex`, `choice`, `grammar`, `json_object`"),
    Parameter("json_schema", "llama-server's: a JSON schema"),
    Parameter("grammar", "GBNF or Lark that the answer follows"),
    Parameter("regex", "a regular expression that the whole answer matches"),
    Parameter("choice", "texts, one of which is the answer"),
    *(Parameter(f"guided_{form}", "vLLM's earlier spelling") for form in ("json", "regex", "grammar", "choice")),
]
# Nothing that this service does could depend on them.
NOTED = [
    Parameter(name, "taken; nothing depends on it")
    for name in ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "request_id")
] + [
    Parameter(name, "taken; nothing depends on it, as what it belongs to is not available")
    for name in (
        *("mirostat_tau", "mirostat_eta", "dynatemp_exponent", "xtc_threshold"),
        *("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
    )
]
REFUSED = neutral(
    # OpenAI's
    audio=(),
    modalities=["text"],
    prediction=(),
    web_search_options=(),
    service_tier=("auto", "default"),
    store=False,
    verbosity="medium",
    # vLLM's
    use_beam_search=False,
    length_penalty=1,
    stop_token_ids=(),
    include_stop_str_in_output=False,
    skip_special_tokens=True,
    spaces_between_special_tokens=(True, False),
    truncate_prompt_tokens=(),
    prompt_logprobs=(),
    allowed_token_ids=(),
    bad_words=(),
    documents=(),
    chat_template=(),
    mm_processor_kwargs=(),
    priority=0,
    logits_processors=(),
    return_tokens_as_token_ids=False,
    return_token_ids=False,
    cache_salt=(),
    kv_transfer_params=(),
    vllm_xargs=(),
    # llama-server's
    n_keep=0,
    n_discard=0,
    n_indent=0,
    cache_prompt=True,
    id_slot=-1,
    dynatemp_range=0,
    typical_p=1,
    xtc_probability=0,
    mirostat=0,
    dry_multiplier=0,
    top_n_sigma=-1,
    samplers=(),
    n_probs=0,
    min_keep=0,
    post_sampling_probs=False,
    response_fields=(),
    return_tokens=False,
    timings_per_token=False,
    t_max_predict_ms=(0, -1),
)
THINKING = [
    Parameter("enable_thinking", "reasoning on or off, where the template has a switch"),
    Parameter("chat_template_kwargs", "variables of the template, `enable_thinking` say"),
    Parameter("thinking_budget", "most tokens of reasoning: its end tag comes then; -1: no bound"),
    Parameter("reasoning_budget", "llama-server's name of it"),
]
_LIMIT = Parameter("max_tokens", "where to cut the answer off; -1: where the context ends")

CHAT = table(
    ASKED,
    SAMPLING,
    FORMS,
    NOTED,
    REFUSED,
    neutral(echo=False, add_special_tokens=False),
    [
        *unavailable(
            functions="send tools instead",
            function_call="send tool_choice instead",
        ),
        Parameter("tools", "functions that the model may call, see [tools](tools.md)"),
        Parameter("tool_choice", "`auto`, `none`, `required`, a function by name, or `allowed_tools`"),
        Parameter("parallel_tool_calls", "false: one call at most"),
        Parameter("messages", "the conversation; contents are text, or parts of text and `image_url`"),
        _LIMIT,
        Parameter("max_completion_tokens", "the same"),
        Parameter("n_predict", "the same"),
        Parameter("continue_final_message", "continue the text of the last message, the assistant's say"),
        Parameter("add_generation_prompt", "false: the prompt ends with the last message"),
        Parameter("reasoning_effort", "`none`, or `low`, `medium`, `high` where the base's template knows efforts"),
        *THINKING,
        Parameter("reasoning_format", "`none` leaves reasoning in `content`; `auto`, `deepseek`: `reasoning_content`"),
        Parameter("include_reasoning", "false: reasoning is left out of the answer"),
        Parameter("logprobs", "log-probabilities of the answer's tokens"),
        Parameter("top_logprobs", "and of so many likeliest others"),
    ],
)
COMPLETION = table(
    ASKED,
    SAMPLING,
    FORMS,
    NOTED,
    REFUSED,
    neutral(suffix=(), add_special_tokens=True, tool_choice=("none", "auto"), parallel_tool_calls=(True, False)),
    [
        *unavailable(**dict.fromkeys(("tools", "functions", "function_call"), "use /v1/chat/completions")),
        Parameter("prompt", "text or token ids to continue as they are, or a list of either"),
        _LIMIT,
        Parameter("n_predict", "the same"),
        Parameter("logprobs", "log-probabilities of tokens, and of so many likeliest others"),
        Parameter("best_of", "has to be `n`"),
        Parameter("echo", "the prompt before the answer, with its log-probabilities"),
    ],
)
STREAM_OPTIONS = table(
    [Parameter("include_usage", "")], neutral(include_obfuscation=False, continuous_usage_stats=False)
)
# What the other kinds of conversations take as well, under these names; they have fields of their own for forms.
BORROWED = table(
    [each for each in SAMPLING if each.name != "n"],
    [each for each in FORMS if each.name != "response_format"],
    THINKING,
    [LORA],
)


def borrowed(document: dict[str, Any]) -> dict[str, Any]:
    """Those of a body that chats have too, as they are."""
    found = {name: document.get(name) for name in BORROWED}
    return {name: value for name, value in found.items() if value is not None}


EMBEDDINGS = table(
    [
        Parameter("model", "the adapter's name, or `base`"),
        Parameter("input", "text or token ids, or a list of either"),
        Parameter("encoding_format", "`float` or `base64` (float32, little-endian)"),
        Parameter("dimensions", "only so many first numbers of each vector, which gets length 1 again"),
        LORA,
        Parameter("user", "taken; nothing depends on it"),
    ],
    neutral(truncate_prompt_tokens=(), add_special_tokens=True, normalize=True, embd_normalize=2),
)
