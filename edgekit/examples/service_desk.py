"""Example data: a shop's service desk, in English and Chinese.

A row is a customer's message, and the answer is one line of JSON: language, intent, order number, product and a reply
in the customer's language.

The rules, all of which a model has to learn from examples:

* The wish decides the intent (``WISHES``).
* Order number and product are copied; the product is written as in the catalogue, in English (``PRODUCTS``).
* Where a message has no order number, ``order`` is null and the reply asks for it (``ASKS``); else it follows from the
  intent (``REPLIES``).

Evaluation rows use (intent, product) pairs and wordings that training lacks, in both languages.  The packaged demo base
has read hardly any Chinese: for Chinese customers take a base that has (docs/your-base.md).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from edgekit.examples.answers import TEXT, answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe, sentence

SYSTEM = "Serve."

LANGUAGES = ("en", "zh")
# As in the catalogue -> as Chinese customers call it.
PRODUCTS = {"kettle": "水壶", "lamp": "台灯", "fan": "风扇", "toaster": "面包机", "heater": "暖气", "scale": "电子秤"}
# Intent -> what customers write, by language.
WISHES = {
    "track": {
        "en": ("where is my {product}", "when does the {product} arrive"),
        "zh": ("我的{product}在哪里", "{product}什么时候到"),
    },
    "return": {
        "en": ("I want to return the {product}", "please take the {product} back"),
        "zh": ("我想退{product}", "请收回{product}"),
    },
    "repair": {
        "en": ("the {product} is broken", "my {product} does not work"),
        "zh": ("{product}坏了", "我的{product}不能用"),
    },
    "cancel": {
        "en": ("please cancel the {product}", "I don't need the {product} any more"),
        "zh": ("请取消{product}", "我不要{product}了"),
    },
    "invoice": {
        "en": ("I need an invoice for the {product}", "send me the bill for the {product}"),
        "zh": ("我要{product}的发票", "请开{product}的发票"),
    },
}
REPLIES = {
    "track": {"en": "Your {product} is on its way.", "zh": "您的{product}在路上。"},
    "return": {"en": "We will collect the {product}.", "zh": "我们会上门取{product}。"},
    "repair": {"en": "We will repair the {product}.", "zh": "我们会修理{product}。"},
    "cancel": {"en": "We have cancelled the {product}.", "zh": "我们已取消{product}。"},
    "invoice": {"en": "We will send the invoice.", "zh": "我们会寄发票。"},
}
ASKS = {"en": "Please send us the order number.", "zh": "请告诉我们订单号。"}
HELD_OUT_SHARE = 0.2

# With an order number, and the last ones without; of each language one is kept for evaluation.
FRAMES = (
    "Hello, {wish}, order {order}.",
    "Order {order}: {wish}",
    "{wish}. My order is {order}.",
    "{wish}, please help.",
    "您好，{wish}，订单{order}。",
    "订单{order}：{wish}",
    "{wish}，单号是{order}。",
    "{wish}，请帮忙。",
    "Good morning, about {order}: {wish}.",
    "早上好，{order}这一单，{wish}。",
)
UNSEEN_FRAMES = 2

SCHEMA = answer_schema(
    language=one_of(LANGUAGES),
    intent=one_of(WISHES),
    order={"type": ["string", "null"]},
    product=one_of(PRODUCTS),
    reply=TEXT,
)


def answer(language: str, intent: str, product: str, order: str | None) -> str:
    """The reference answer by the rules above."""
    reply = ASKS[language] if order is None else REPLIES[intent][language].format(product=_named(product, language))
    return one_line({"language": language, "intent": intent, "order": order, "product": product, "reply": reply})


def _named(product: str, language: str) -> str:
    return product if language == "en" else PRODUCTS[product]


def _row(chosen: random.Random, combination: tuple[str, str], frames: Sequence[str]) -> tuple[str, str]:
    intent, product = combination
    frame = chosen.choice(frames)
    language = "en" if frame.isascii() else "zh"
    wish = chosen.choice(WISHES[intent][language]).format(product=_named(product, language))
    order = f"{chosen.choice('ABCD')}{chosen.randint(100, 999)}"
    text = frame.format(wish=wish, order=order)
    return sentence(text), answer(language, intent, product, order if "{order}" in frame else None)


COMBINATIONS = tuple(itertools.product(WISHES, PRODUCTS))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
