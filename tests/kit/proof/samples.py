"""Proofs as exports make them, of invented answers: scored, judged and worded by the code that does it for real ones.

``python -m tests.kit.proof.samples FOLDER`` writes a report of each, to look at.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgekit.data import Row
from edgekit.evaluation.answers import free_text_fields
from edgekit.evaluation.calls import call_reader
from edgekit.evaluation.scoring import Yardstick
from edgekit.examples import chat, inspection, machine_tools, monitoring
from edgekit.project import Adapter, Gate
from edgekit.proof.alive import Change, Reach
from edgekit.proof.compare import Proof, _proof
from edgekit.proof.gate import _figures, _quality
from edgekit.proof.reference import Reference
from edgekit.proof.report import write_report
from edgekit.proof.tokens import Tokens
from edgekit.proof.verdict import remedy, unfaithful
from edgekit_runtime.prompts.tool_format import DEFAULT_FORMAT, Call, default_text

Pairs = Sequence[tuple[str, str]]  # prompts with their expected answers
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31mred\x1b[0m \u202egnp.exe\u202c \x00 & \"'"
LADDER = (  # type, MB, mean KL, tokens/s
    ("Q4_0", 98.7, 0.0412, 74.1),
    ("IQ4_NL", 99.3, 0.0297, 61.5),
    ("Q4_K_M", 112.4, 0.0218, 66.0),
    ("Q5_K_M", 119.9, 0.0091, 58.3),
    ("Q6_K", 145.1, 0.0024, 52.9),
    ("Q8_0", 151.8, 0.0006, 55.2),
    ("F16", 277.3, 0.0001, 31.4),
)


@dataclass(frozen=True)
class Sample:
    """What a report is written from."""

    proofs: Sequence[Proof]
    quality: dict[str, Any]
    figures: dict[str, dict[str, Any]]
    origin: dict[str, Any]
    remedy: str | None

    def write(self, folder: Path) -> None:
        write_report(folder, self.proofs, self.quality, self.figures, self.origin, remedy=self.remedy)


def proof(
    name: str,
    pairs: Pairs,
    trained: Sequence[str],
    device: Sequence[str],
    base: Sequence[str],
    *,
    kl: float = 0.0008,
    quantization: str = "Q4_0",
    merged: bool = False,
    yardstick: Yardstick | None = None,
) -> Proof:
    """The proof of an adapter that answered so; ``kl`` is about the mean KL of its tokens."""
    rows = [Row(({"role": "user", "content": asked},), answer, (), "") for asked, answer in pairs]
    spread = np.random.default_rng(0).lognormal(np.log(max(kl, 1e-9)) - 1.125, 1.5, (len(rows), 20))
    reference = Reference(
        adapter=Adapter(name=name),
        runs_on="gguf Q4_0",
        rows=rows,
        places=[f"data/{name}.eval.jsonl:{number}" for number in range(1, len(rows) + 1)],
        max_tokens=96,
        yardstick=yardstick or Yardstick(free_text_fields([answer for _, answer in pairs])),
        prompts=[[1]] * len(rows),
        answers=trained,
        base_answers=base,
        forced=[[1]] * len(rows),
        logprobs=(),
        likeliest=(),
        change=Change(0.62, 9.1),
    )
    same = [np.array([value < 0.05 for value in row]) for row in spread]
    tokens = Tokens(list(spread), same, 0.21, 0.2104, Change(0.6, 9.0), Reach(0.98, (0.95, 1.01)))
    return _proof(reference, quantization, merged, [[1]] * len(rows), device, tokens)


def sample(
    proofs: Sequence[Proof], gate: Gate | None = None, *, accepted: str | None = None, ladder: bool = False
) -> Sample:
    """Judged as the gate judges."""
    gate = gate or Gate()
    manifest: Any = SimpleNamespace(engine="llama.cpp", base=SimpleNamespace(kv_cache=None))
    quality = _quality(proofs, gate, manifest)
    if ladder:
        keys = ("quantization", "size_mb", "mean_kl", "decode_tps", "refused")
        rungs = [
            (*rung, [f"mean KL {rung[2]:.3f} > {gate.max_mean_kl:g}"] if rung[2] > gate.max_mean_kl else [])
            for rung in LADDER
        ]
        quality["ladder"] = [
            dict(zip(keys, rung, strict=True)) for rung in sorted(rungs, key=lambda rung: (bool(rung[4]), rung[1]))
        ]
    failed = quality["gate"] == "failed"
    if failed and accepted:
        quality["accepted"] = accepted
    first = next((each for each in proofs if unfaithful(each, gate)), proofs[0])
    return Sample(
        proofs,
        quality,
        {each.adapter: _figures(each, gate) for each in proofs},
        _origin(proofs),
        remedy(first, gate) if failed and not accepted else None,
    )


def _origin(proofs: Sequence[Proof]) -> dict[str, Any]:
    names = [each.adapter for each in proofs]
    digest = "8dae9f5e1bd4160a25210b71f142573fe456f7924a1b4a00659457992c396469"
    return {
        "project": "line-3",
        "bundle": {"name": "line-3", "version": "2026.03.14.091530"},
        "date": "2026-03-14T09:15:57+00:00",
        "base": {"name": "smollm2-135m", "family": "smollm2-135m-6a04d1c7f869", "quantization": proofs[0].quantization,
                 "digest": digest, "merged": [each.adapter for each in proofs if each.merged]},
        "device": {"profile": "raspberry-pi-5", "isa": "armv8.2-a+dotprod"},
        "versions": {"engine": "llama.cpp (llama-cpp-python 0.3.36)", "edgekit": "0.1.0", "torch": "2.13.0"},
        "digests": {"base": digest, **{kind: dict.fromkeys(names, digest) for kind in ("adapters", "trained", "eval")}},
    }  # fmt: skip


def json_pairs(kind: Any, count: int) -> list[tuple[str, str]]:
    """Questions and answers of an example project."""
    _, rows = kind.generate(40, count, 0)
    if "prompt" in rows[0]:
        return [(row["prompt"], row["completion"]) for row in rows]
    return [(row["messages"][0]["content"], row["messages"][-1]["content"]) for row in rows]


def changed(answer: str, seed: int, pool: Sequence[str]) -> str:
    """A JSON answer with a field or two from another answer."""
    chosen = random.Random(seed)
    fields, other = json.loads(answer), json.loads(chosen.choice(pool))
    for key in chosen.sample(sorted(fields), chosen.choice((1, 2))):
        fields[key] = other[key]
    return json.dumps(fields)


def answered(pairs: Pairs, every: int, change: Callable[[str, int, Sequence[str]], str], start: int = 0) -> list[str]:
    """The expected answers, each ``every``-th one changed."""
    pool = [answer for _, answer in pairs]
    return [change(answer, n, pool) if (n + start) % every == 0 else answer for n, answer in enumerate(pool)]


def json_proof(name: str, kind: Any, count: int = 24, *, device_every: int = 0, **options: Any) -> Proof:
    """JSON answers: the base talks, the trained model is right on two rows of three, the device nearly as often."""
    pairs = json_pairs(kind, count)
    trained = answered(pairs, 3, changed)
    pool = [answer for _, answer in pairs]
    device = list(trained)
    for n in range(1, count, device_every or 9):
        device[n] = (
            pairs[n][1] if trained[n] != pairs[n][1] and not device_every else changed(trained[n], n + 100, pool)
        )
    base = [
        f"The part is a {asked.split()[0]}. I would accept it, but please check the drawing first."
        for asked, _ in pairs
    ]
    if kind is inspection:
        base[0] = '{"part": "gear", "colour": "grey", "verdict": "scrap"}'
    return proof(name, pairs, trained, device, base, **options)


def text_proof(name: str = "style", count: int = 8) -> Proof:
    """Sentences; one device answer is right where torch is wrong, one is hostile, one has no end."""
    pairs = json_pairs(chat, count)
    trained = [answer for _, answer in pairs]
    trained[1] = trained[1].replace(" ", " really ", 2)
    trained[2] = " ".join(trained[2].split()[:-3])
    device = list(trained)
    device[1] = pairs[1][1]
    device[3] = HOSTILE
    device[4] = f"{pairs[4][1]} " + "and so on, " * 9_100
    base = [f"As a language model I can tell you about {asked.lower()}" for asked, _ in pairs]
    return proof(name, pairs, trained, device, base)


def calls_proof(name: str = "operator", count: int = 24) -> Proof:
    """Calls of tools: the base talks, the trained model has some wrong, the device ends one in the middle."""
    _, found = machine_tools.generate(40, count, 0)
    messages: list[Any] = [row["messages"] for row in found]
    pairs = [(asked["content"], call_text(said)) for asked, said in messages]
    trained = [answer for _, answer in pairs]
    called = [n for n, answer in enumerate(trained) if answer.startswith("<tool_call>")]
    silent = [n for n in range(count) if n not in called]
    trained[called[0]] = trained[called[1]]
    device = list(trained)
    device[called[2]] = device[called[2]][:-20]
    device[silent[0]] = trained[called[1]]
    base = ["I would be happy to help." for _ in pairs]
    return proof(name, pairs, trained, device, base, yardstick=Yardstick(read_calls=call_reader(DEFAULT_FORMAT)))


def call_text(message: dict[str, Any]) -> str:
    """What a base without a form of its own answers."""
    calls = [Call(**call["function"]) for call in message.get("tool_calls") or ()]
    return default_text(calls) if calls else str(message["content"])


def samples() -> dict[str, Sample]:
    """Of each kind one."""
    good = json_proof("inspection", inspection)
    other = json_proof("monitoring", monitoring)
    lossy = json_proof("inspection", inspection, device_every=2, kl=0.21)
    pairs = json_pairs(inspection, 4)
    poor = proof("inspection", pairs, *([["no idea"] * 4] * 3))
    return {
        "passed": sample([good]),
        "three": sample([good, other, text_proof()], Gate(max_loss_points=30)),
        "refused": sample([lossy, other]),
        "notgood": sample([poor]),
        "accepted": sample([lossy], accepted="trial on line 3 only, until the next training"),
        "ladder": sample(
            [json_proof("inspection", inspection, kl=0.0218, quantization="Q4_K_M")],
            Gate(max_mean_kl=0.025),
            ladder=True,
        ),
        "tools": sample([good, calls_proof()], Gate(max_loss_points=30)),
        "merged": sample([json_proof("inspection", inspection, merged=True)]),
    }


if __name__ == "__main__":
    for name, each in samples().items():
        each.write(Path(sys.argv[1]) / name)
