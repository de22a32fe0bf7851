"""Which fields of Ollama's requests are known, and what becomes of each."""

from __future__ import annotations

from edgekit_runtime.server.parameters import Parameter, neutral, table, unavailable

_SHARED = [
    Parameter("model", "the adapter's name, or `base`; `:latest` behind it changes nothing"),
    Parameter("stream", "true (the default): piece by piece, one JSON object a line"),
    Parameter("format", "`json`, or a JSON schema"),
    Parameter("options", "how tokens are chosen, see below"),
    Parameter("keep_alive", "taken; models stay loaded"),
    Parameter("think", "reasoning on or off, or `low`, `medium`, `high` where the base's template knows efforts"),
    Parameter("logprobs", "log-probabilities of the answer's tokens"),
    Parameter("top_logprobs", "and of so many likeliest others"),
    *neutral(_debug_render_only=False),
    *(
        Parameter(name, "not available", (False,), "what doesn't fit the context is refused, and nothing is cut out")
        for name in ("truncate", "shift")
    ),
]
CHAT = table(
    _SHARED,
    [
        Parameter("messages", "the conversation; without any, the answer says that the model is loaded"),
        Parameter("tools", "functions that the model may call, see [tools](tools.md)"),
    ],
)
_TEMPLATE = "the base's own chat template counts: leave it out, or send raw: true with a prompt that is rendered"
GENERATE = table(
    _SHARED,
    [
        Parameter("prompt", "the question; without one, the answer says that the model is loaded"),
        Parameter("system", "in the place of the adapter's system prompt"),
        Parameter("raw", "true: continue the prompt as it is, without template or system prompt"),
        Parameter("images", "in base64, for caption bundles"),
    ],
    unavailable(
        template=_TEMPLATE,
        context="send the conversation to /api/chat",
        suffix="leave it out: the models here continue a text, and fill none in",
        **dict.fromkeys(("width", "height", "steps"), "leave it out: nothing here draws images"),
    ),
)
MESSAGE = table(
    [
        Parameter("role", "`system`, `user`, `assistant` or `tool`"),
        Parameter("content", "its text"),
        Parameter("thinking", "an answer's reasoning"),
        Parameter("images", "in base64, for caption bundles"),
        Parameter("tool_calls", "calls of an answer"),
        Parameter("tool_name", "whose result it is"),
        Parameter("tool_call_id", "of which call"),
    ]
)
# Sampling defaults of bases and adapters, by the names of manifests -> Ollama's.
DEFAULTS = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "max_tokens": "num_predict"}
NOTED = "taken; nothing depends on it"
OPTIONS = table(
    [
        Parameter("temperature", "0 is greedy; the adapter's own value when it is missing"),
        Parameter("top_k", "sample from so many likeliest tokens; 0 means all"),
        Parameter("top_p", "sample from the likeliest tokens that have this probability together"),
        Parameter("min_p", "sample from tokens that have this share of the likeliest one's probability"),
        Parameter("seed", "same seed, same answer; -1 and none mean a fresh one"),
        Parameter(
            "num_predict",
            "where to cut the answer off; -1 and -2: where the context ends; when it is missing, the adapter's own "
            "value, or 256",
        ),
        Parameter("stop", "texts that end the answer"),
        Parameter("repeat_penalty", "over 1: tokens of prompt and answer become less likely"),
        Parameter("repeat_last_n", "of so many last tokens (64 when it is missing); 0: none; -1: all"),
        Parameter("frequency_penalty", "-2 to 2, for each time that the answer has a token"),
        Parameter("presence_penalty", "-2 to 2, once for each token that the answer has"),
        Parameter("num_ctx", "taken; the context is the service's, see `--context`"),
    ],
    [
        Parameter(name, NOTED)
        for name in (
            *("num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "draft_num_predict"),
            *("use_mmap", "use_mlock", "numa", "low_vram", "f16_kv", "mirostat_tau", "mirostat_eta"),
        )
    ],
    neutral(
        typical_p=1,
        tfs_z=1,
        mirostat=0,
        penalize_newline=True,
        logits_all=False,
        vocab_only=False,
        embedding_only=False,
    ),
)
_VECTORS = [
    Parameter("model", "the adapter's name, or `base`; `:latest` behind it changes nothing"),
    Parameter("options", "taken; vectors depend on none"),
    Parameter("keep_alive", "taken; models stay loaded"),
]
EMBED = table(
    _VECTORS,
    [
        Parameter("input", "a text, or a list of texts; without any, the answer says that the model is loaded"),
        Parameter("truncate", "true (the default): leave out the end of a text that doesn't fit the context"),
        Parameter("dimensions", "only so many first numbers of each vector, which gets length 1 again"),
    ],
)
EMBEDDINGS = table(
    _VECTORS, [Parameter("prompt", "a text, whose end is left out where it doesn't fit; its vector has length 1, too")]
)
SHOW = table(
    [
        Parameter("model", "the adapter's name, or `base`"),
        Parameter("name", "the same, as earlier clients send it"),
        Parameter("verbose", "taken; long lists are left out either way"),
    ],
    neutral(system=(), template=(), options=()),
)
PULL = table(
    [
        Parameter("model", "a model that is here: there is nothing to do then"),
        Parameter("name", "the same, as earlier clients send it"),
        Parameter("stream", "true (the default): the answer is a line"),
        Parameter("insecure", NOTED),
        Parameter("username", NOTED),
        Parameter("password", NOTED),
    ]
)
