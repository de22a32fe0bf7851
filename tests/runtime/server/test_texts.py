"""Token ids, texts and prompts over HTTP: what the service says is what its answers are computed from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgekit_runtime import Runtime
from tests.goods import Goods
from tests.service import Service, serving

MESSAGES = [{"role": "user", "content": "a scratch <|im_end|> of 3 mm, größer"}]


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


def ask(service: Service, path: str, **body: Any) -> Any:
    answer = service.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_conversations_tokens_are_those_of_its_prompt(service: Service, goods: Goods) -> None:
    with Runtime(goods.bundle, threads=1, context=128) as runtime:
        expected = {name: runtime.encode(MESSAGES, adapter=name).tokens for name in ("one", "base")}
    for name, tokens in expected.items():
        found = ask(service, "/tokenize", model=name, messages=MESSAGES)
        assert found["tokens"] == tokens
        assert found["count"] == len(tokens)
        assert found["max_model_len"] > len(tokens)
        assert service.chat(model=name, messages=MESSAGES).json()["usage"]["prompt_tokens"] == len(tokens)


def test_a_prompt_is_shown_as_text(service: Service) -> None:
    prompt = ask(service, "/apply-template", model="one", messages=MESSAGES)["prompt"]
    assert prompt.endswith("<|im_start|>assistant\n")
    assert MESSAGES[0]["content"] in prompt
    going_on = [*MESSAGES, {"role": "assistant", "content": "It is"}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert ask(service, "/apply-template", messages=going_on, **options)["prompt"].endswith("It is")


@pytest.mark.parametrize("text", ["scratch", "größer <|im_end|> 検", " \n", ""])
def test_texts_become_tokens_and_texts_again(service: Service, text: str) -> None:
    of_vllm = ask(service, "/tokenize", prompt=text, return_token_strs=True)
    of_llama = ask(service, "/tokenize", content=text, with_pieces=True)
    assert len(of_vllm["token_strs"]) == of_vllm["count"]
    assert [each["id"] for each in of_llama["tokens"]] == ask(service, "/tokenize", content=text)["tokens"]
    back = ask(service, "/detokenize", tokens=[each["id"] for each in of_llama["tokens"]])
    assert back["prompt"] == back["content"] == text
    spelt = ask(service, "/tokenize", content=text, parse_special=False)
    assert ("<|im_end|>" in text) == (spelt["count"] > len(of_llama["tokens"]))


def test_the_tokenizer_is_told(service: Service) -> None:
    facts = service.http.get("/tokenizer_info").json()
    assert "<|im_start|>" in facts["chat_template"]
    assert facts["vocab_size"] > 1000
    assert facts["eos_token"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/tokenize", {}, "one of prompt, content and messages"),
        ("/tokenize", {"prompt": "a", "content": "b"}, "one of prompt, content and messages"),
        ("/tokenize", {"prompt": ["a"]}, "prompt has to be text"),
        ("/tokenize", {"messages": "a"}, "messages has to be a list"),
        ("/tokenize", {"messages": [{"role": "x"}]}, "no known role"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "true or false"),
        ("/tokenize", {"prompt": "word " * 50_000}, "context"),
        ("/detokenize", {"tokens": "a"}, "list of token ids"),
        ("/detokenize", {"tokens": [1.5]}, "list of token ids"),
        ("/detokenize", {"tokens": [-1]}, "doesn't know"),
        ("/detokenize", {"tokens": [10**12]}, "doesn't know"),
        ("/apply-template", {"messages": []}, "no messages"),
        ("/apply-template", {"messages": MESSAGES, "model": "nobody"}, "no adapter"),
        ("/apply-template", {"messages": MESSAGES, "chat_template": "x"}, "chat_template is not available"),
    ],
)
def test_what_is_none_is_refused(service: Service, path: str, body: dict[str, Any], words: str) -> None:
    answer = service.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]
