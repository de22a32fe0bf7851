"""The reference of the HTTP service, docs/api.md, from the tables by which it reads requests.

``make docs-commands`` writes it; a test compares.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator

from edgekit_runtime.server import parameters
from edgekit_runtime.server.anthropic.parameters import MESSAGES as ANTHROPIC
from edgekit_runtime.server.ollama import tables as ollama
from edgekit_runtime.server.openai import parameters as openai
from edgekit_runtime.server.parameters import Parameter, Table
from edgekit_runtime.server.responses_api.parameters import RESPONSE
from edgekit_runtime.server.streaming import PING_SECONDS

HEAD = f"""# HTTP API

What `edgekit-runtime serve` answers.  `make docs-commands` writes this page from the code.  [operate.md](operate.md)
says how to run the service.

A field of a request is done, refused with 400 and its name, or, where nobody knows it, named in the header
`X-Edgekit-Ignored` of the answer.  Nothing else is left out.  Errors have OpenAI's form, but for
[Anthropic's](#messages) and [Ollama's](#ollamas-api) API; `error.code` is `context_length_exceeded` where prompt and
answer don't fit the context.

`"model": "auto"` has the device [choose the adapter](auto.md).  `model` in the answer is the one that answers; `route`
there and the header `X-Edgekit-Route` say how sure that is.

A stream that is silent for {PING_SECONDS:.0f} seconds, while a long prompt is read say, sends what clients skip and
proxies see: a comment, Anthropic's `ping`, or in Ollama's API an object without text.

Where the service has a key, clients send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.  Pages of other sites
may ask where `--cors ORIGIN` names their site.

## Paths

| Path | |
|---|---|
"""
ROUTES = {
    "/": "a status page, for people",
    "/health": "200 when the engine can answer, else 503",
    "/status": "what the service does now, as JSON",
    "/metrics": "figures for Prometheus",
    "/v1/models": "the base and each adapter; `reasoning` says what an adapter was trained for",
    "/v1/models/{name}": "one of them",
    "/v1/chat/completions": "[answers a conversation](#chat-and-completions)",
    "/v1/completions": "[continues a text](#chat-and-completions)",
    "/v1/embeddings": "[vectors of texts](#embeddings)",
    "/v1/responses": "[answers](#responses) as OpenAI's Responses API does; nothing is stored",
    "/v1/responses/input_tokens": "tokens of such a request's prompt",
    "/v1/messages": "[answers](#messages) as Anthropic's Messages API does",
    "/v1/messages/count_tokens": "tokens of such a request's prompt",
    "/v1/load_lora_adapter": "[loads an adapter](#adapters), as vLLM does",
    "/v1/unload_lora_adapter": "[unloads one](#adapters)",
    "/lora-adapters": "adapters with the numbers that `lora` may name them by, as at llama-server",
    "/tokenize": "[token ids](#texts-and-tokens) of a text or a conversation",
    "/detokenize": "[the text](#texts-and-tokens) of token ids",
    "/apply-template": "[the prompt](#texts-and-tokens) that a conversation becomes",
    "/tokenizer_info": "chat template, special tokens and the number of tokens",
    "/api/chat": "[answers a conversation](#ollamas-api), as Ollama does",
    "/api/generate": "[answers a question, or continues a text](#ollamas-api)",
    "/api/tags": "the base and each adapter, `NAME:latest`",
    "/api/ps": "the same, as models in memory",
    "/api/show": "one of them: template, system prompt, defaults, capabilities, what the base's file says of itself",
    "/api/version": "the version of Ollama whose API this is, and our own",
    "/api/embed": "[vectors of texts](#ollamas-api), as [here](#embeddings)",
    "/api/embeddings": "[the vector of a text](#ollamas-api), as earlier clients ask for it",
    "/api/pull": "a success for a model that is here; [others](#ollamas-api) are not fetched",
    "/api/push": "501 and [how it is done here](#ollamas-api), as the next four",
    "/api/create": "501",
    "/api/copy": "501",
    "/api/delete": "501",
    "/api/blobs/{digest}": "501",
}
ASKING = """
## Chat and completions

Tokens are chosen in this order, by llama.cpp's samplers on every engine: `logit_bias`, `repetition_penalty`,
`frequency_penalty` and `presence_penalty`, `top_k`, `top_p`, `min_p`, `temperature`, the draw.  `repetition_penalty`
looks at prompt and answer, the other two at the answer alone.  The same seed gives the same answer, whoever else asks.

Log-probabilities are the model's own, as vLLM and llama-server give them: before all of the above, and before a schema,
a grammar or tools leave only some tokens.  So the token that an answer has may be a rare one that none of the likeliest
beside it shows, and a sum over the tokens that were allowed is below 1.

| Field | Chat | Completions | |
|---|---|---|---|
"""
NEUTRAL = """
These fields are known and not done.  They are taken with the value that changes nothing, and refused with others.

| Field | Value |
|---|---|
"""
EMBEDDINGS = """
## Embeddings

The vector of a text is the mean of the model's last hidden state over the text's tokens, divided by its length, under
the base or an adapter.  The bases here are language models: nothing trained them for such vectors, and a model that is
made for embeddings compares texts better.

A text is read as it is, without template and system prompt; control tokens spelt in it are text.  It has to fit the
context.  Token ids are those of the base: clients that count tokens with OpenAI's tokenizer have to send text
(`check_embedding_ctx_length=False` in LangChain).  Bundles for ONNX Runtime are refused, as their graphs give logits
alone.

| Field | Embeddings | |
|---|---|---|
"""
REST = """So are those of chats that are known and not done.
"""
RESPONSES = """
## Responses

OpenAI's Responses API, for its clients' `responses.create`, `.parse` and `.stream`.  Nothing is stored: each request
brings its whole conversation, and every answer says `store: false`.  Tools are functions.  Reasoning is an item with
`reasoning_text`, and goes back to the base's template when it is sent again; `summary` asks for nothing.  An answer
that `max_output_tokens` cuts off is `incomplete`.

| Field | |
|---|---|
"""
MESSAGES = """
## Messages

Anthropic's Messages API, for its clients' `messages.create`, `.parse`, `.stream` and `.count_tokens`.  Errors have
Anthropic's form, with the codes of the others as `details.error_code`.  Nothing is stored: `thread` is refused, and the
client's loop of tools does without it.  The key comes as `x-api-key`; `anthropic-version` and `anthropic-beta` may have
any value.  Images are `base64`, or a `url` that chats take too.  Blocks of text that follow each other stand apart by a
blank line.  `cache_read_input_tokens` are those of the prompt that were in the KV cache; they are not among
`input_tokens`.

| Field | |
|---|---|
"""
ADAPTERS = """
## Adapters

A success is JSON with `message` in vLLM's words, which `Accept: text/plain` gets alone.  A name that is taken is 400
without `load_inplace`; a path without an adapter is 404.

| Field | Load | Unload | |
|---|---|---|---|
"""
TEXTS = """
## Texts and tokens

`/tokenize` takes one of `prompt`, `content` and `messages`.

| Field | Tokenize | Detokenize | Apply-template | |
|---|---|---|---|---|
"""
OLLAMA = """
## Ollama's API

For programs that speak to Ollama: give them this service's address as their host.  A name may have `:latest` behind it.
Streams are the default there; they are lines of JSON, and the last one has `done_reason` and the counts, with times in
nanoseconds.  Errors are `{"error": "text"}`.  Other things than in Ollama:

* Options that are missing are the adapter's own, not Ollama's: greedy, and 256 tokens, where it says nothing.
* Messages that don't fit the context are refused, and none is left out.
* The chat template is the base's own; a last message of the assistant is continued.
* Models are not pulled, created, copied or deleted here: `edgekit import-ollama` makes a bundle of a Modelfile, and
  [adapters](#adapters) come and go.

| Field | Chat | Generate | |
|---|---|---|---|
"""
OLLAMA_VECTORS = """
Vectors are [those of /v1/embeddings](#embeddings), of length 1 at both paths.

| Field | Embed | Embeddings | |
|---|---|---|---|
"""
OLLAMA_OPTIONS = """
In `options`:

| Option | |
|---|---|
"""
OLLAMA_NEUTRAL = """
These are known and not done, in `options` or beside.  They are taken with the value that changes nothing, and refused
with others.

| Field | Value |
|---|---|
"""
OLLAMA_MESSAGES = """
In messages:

| Field | |
|---|---|
"""
YES, NO = "yes", ""
COLUMNS = 120


def reference() -> str:
    """The page, in Markdown."""
    paths = "".join(f"| `{path}` | {text} |\n" for path, text in ROUTES.items())
    asked = [openai.CHAT, openai.COMPLETION]
    refused = [*asked, openai.EMBEDDINGS]
    return (
        f"{HEAD}{paths}{ASKING}{_done(asked)}{NEUTRAL}{_neutral(refused)}"
        f"{EMBEDDINGS}{_done([openai.EMBEDDINGS])}"
        f"{RESPONSES}{_others(RESPONSE)}{MESSAGES}{_others(ANTHROPIC)}"
        f"{ADAPTERS}{_done([parameters.LOAD, parameters.UNLOAD])}"
        f"{TEXTS}{_done([parameters.TOKENIZE, parameters.DETOKENIZE, parameters.TEMPLATE])}"
        f"{OLLAMA}{_done([ollama.CHAT, ollama.GENERATE])}"
        f"{OLLAMA_VECTORS}{_done([ollama.EMBED, ollama.EMBEDDINGS])}"
        f"{OLLAMA_OPTIONS}{_named(ollama.OPTIONS)}{OLLAMA_MESSAGES}{_named(ollama.MESSAGE)}"
        f"{OLLAMA_NEUTRAL}{_neutral([ollama.CHAT, ollama.GENERATE, ollama.OPTIONS])}"
    )


def _others(known: Table) -> str:
    """A dialect's own fields, and the names of those that are as in chats."""
    shared = {name: each for name, each in known.items() if openai.CHAT.get(name) == each}
    own = {name: each for name, each in known.items() if name not in shared}
    names = ", ".join(f"`{name}`" for name, each in shared.items() if each.only is None)
    as_in_chats = textwrap.fill(f"As in chats: {names}.", COLUMNS, break_on_hyphens=False)
    return f"{_done([own])}\n{as_in_chats}\n{NEUTRAL}{_neutral([own])}\n{REST}"


def _done(tables: list[Table]) -> str:
    rows = []
    for parameter in _all(tables):
        found = [table.get(parameter.name) for table in tables]
        if any(each is not None and each.only is None for each in found):
            marks = [NO if each is None or each.only is not None else YES for each in found]
            marked = f"{' | '.join(marks)} | " if len(tables) > 1 else ""
            rows.append(f"| `{parameter.name}` | {marked}{_cell(parameter.does)} |\n")
    return "".join(rows)


def _named(table: Table) -> str:
    """What is done, of one kind of object."""
    done = (each for each in table.values() if each.only is None)
    return "".join(f"| `{each.name}` | {_cell(each.does)} |\n" for each in done)


def _neutral(tables: list[Table]) -> str:
    rows = []
    for parameter in _all(tables):
        found = [table[parameter.name] for table in tables if parameter.name in table]
        values = [value for each in found if each.only is not None for value in _shown(each)]
        if values:
            rows.append(f"| `{parameter.name}` | {_cell(', '.join(dict.fromkeys(values)))} |\n")
    return "".join(rows)


def _shown(parameter: Parameter) -> Iterator[str]:
    """The values that change nothing; null always does."""
    if parameter.only is not None and not parameters.is_nothing(parameter):
        yield from (f"`{json.dumps(value)}`" for value in parameter.only)
    else:
        yield "none"


def _all(tables: list[Table]) -> Iterator[Parameter]:
    """Each parameter once, with what it does where it is done."""
    for name in dict.fromkeys(name for table in tables for name in table):
        found = [table[name] for table in tables if name in table]
        yield next((each for each in found if each.only is None), found[0])


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
