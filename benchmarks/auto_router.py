"""How well `auto` chooses among the example adapters, and what it costs: no training, no answers.

    python benchmarks/auto_router.py BASE.gguf [--seed 11]

Heads are fitted on the training rows of nine recipes.  Then evaluation rows, drawn with another seed, and texts that no
choice of a setting has seen are given to them.  Real texts are the examples that lm-eval (the `bench` extra) brings for
MMLU, BIG-bench Hard and GSM8K.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from edgekit.examples.init import TEMPLATES
from edgekit.routing.everyday import texts_of
from edgekit.routing.fit import fit_heads
from edgekit.routing.unseen import UNSEEN
from edgekit_runtime.engines.llama.token_rows import TokenRows
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.route import choose, user_text
from edgekit_runtime.runtime.routing import text_features

RECIPES = ("inspection", "service-desk", "finance", "triage", "contract", "lesson", "tools", "chat")


def main() -> None:
    """Fit, ask, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--without", default="", help="an adapter whose head is fitted alone, as one installed later")
    arguments = parser.parse_args()
    vocabulary, rows = LlamaVocabulary.open(arguments.base), TokenRows(read_gguf(arguments.base))
    features = functools.partial(text_features, tokenize=vocabulary.tokenize, rows=rows)
    train: dict[str, list[str]] = {}
    held: dict[str, list[str]] = {}
    for example in (each for recipe in RECIPES for each in TEMPLATES[recipe]):
        trained, evaluated = example.generate(example.train_rows, example.eval_rows, arguments.seed)
        train[example.name], held[example.name] = list(map(_text, trained)), list(map(_text, evaluated))
    began = time.perf_counter()
    late = arguments.without
    heads = fit_heads({name: texts for name, texts in train.items() if name != late}, features)
    if late:
        heads[late] = fit_heads({late: train[late]}, features)[late]
    fitted = time.perf_counter() - began

    def chosen(text: str) -> str:
        return choose(features(text), heads, None).adapter or "fallback"

    found: dict[str, Any] = {"seconds_of_fit": round(fitted, 1), "late": late or None}
    found["adapters"] = {name: dict(Counter(map(chosen, texts)).most_common()) for name, texts in held.items()}
    shares = [found["adapters"][name].get(name, 0) / len(texts) for name, texts in held.items()]
    found["right_percent"] = round(100 * statistics.mean(shares), 2)
    for title, kinds in (("unseen", texts_of(UNSEEN)), ("real", real_texts())):
        counts = {
            kind: (sum(chosen(text) == "fallback" for text in texts), len(texts)) for kind, texts in kinds.items()
        }
        total = sum(count for count, _ in counts.values()), sum(size for _, size in counts.values())
        found[title] = {"fallback_percent": round(100 * total[0] / total[1], 2), "rows": total[1]}
        found[title]["kinds"] = {kind: round(100 * count / size, 1) for kind, (count, size) in counts.items()}
    found["ms"] = {}
    for title, text in (("a question", held["triage"][0]), ("8,192 signs", "word and word " * 600)):
        took = []
        for _ in range(100):
            began = time.perf_counter()
            chosen(text)
            took.append(1e3 * (time.perf_counter() - began))
        found["ms"][title] = round(statistics.median(took), 3)
    sure: dict[bool, list[float]] = {True: [], False: []}
    asked: list[tuple[str | None, str]] = [(name, text) for name, texts in held.items() for text in texts]
    asked += [(None, text) for texts in texts_of(UNSEEN).values() for text in texts]
    for owner, text in asked:
        route = choose(features(text), heads, None)
        sure[route.adapter == owner].append(route.confidence)
    found["mean_confidence"] = {"right": statistics.mean(sure[True]), "wrong": statistics.mean(sure[False])}
    print(json.dumps(found, indent=1))


def real_texts() -> dict[str, list[str]]:
    """Questions that come with lm-eval."""
    where = importlib.util.find_spec("lm_eval")
    if where is None or where.origin is None:
        return {}
    tasks = Path(where.origin).parent / "tasks"
    prompts = json.loads((tasks / "mmlu/flan_cot_fewshot/_cot_prompts.json").read_text())
    found = {
        "MMLU": [text for each in prompts.values() for text in re.findall(r"Q: (.*?)\n", each)],
        "BBH": [],
        "GSM8K": [],
    }
    for kind, pattern, key in (("BBH", "bbh/cot_fewshot/*.yaml", "input"), ("GSM8K", "gsm8k/*.yaml", "question")):
        for path in sorted(tasks.glob(pattern)):
            samples = (_document(path).get("fewshot_config") or {}).get("samples")
            found[kind] += [each[key] for each in samples if key in each] if isinstance(samples, list) else []
    return {kind: list(dict.fromkeys(texts)) for kind, texts in found.items()}


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with the tags of lm-eval left out."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: None)


def _document(path: Path) -> dict[str, Any]:
    document = yaml.load(path.read_text(), _Plain)
    return document if isinstance(document, dict) else {}


def _text(row: dict[str, Any]) -> str:
    return row["prompt"] if "prompt" in row else user_text(row["messages"])


if __name__ == "__main__":
    main()
