"""The rows of docs/bases.md."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bases.probe.compare import AGREE_ERROR, AGREE_KL, Distance
from edgekit.bases.probe.measure import PROMPT, Layers
from edgekit_exporters.conversion.converters import PACKAGE, engine_version
from real_bases import section


@dataclass(frozen=True)
class Row:
    """What was found of one family.

    Attributes:
        kind, names: transformers' model type, and models of it.
        onnx: how far ONNX Runtime is from torch, or why that can't be told.
        base, adapted, merged: how far the engine is from torch; None where that was not asked.
        layers: what its linear layers do.
        blocks: "yes", or why it doesn't train on blocks.
        window: of attention, where the engine has none and agrees with shorter texts alone.
        failure: why nothing was measured.
    """

    kind: str
    names: str
    onnx: str = "not tried"
    base: Distance | None = None
    adapted: Distance | None = None
    merged: Distance | None = None
    layers: Layers | None = None
    blocks: str = ""
    window: int | None = None
    failure: str = ""

    @property
    def green(self) -> bool:
        """Whether all that was asked is so."""
        return self.blocks == "yes" and all(
            each is not None and each.agree for each in (self.base, self.adapted, self.merged)
        )

    @property
    def note(self) -> str:
        """What there is to know of it, in plain words."""
        if self.failure:
            return plain(self.failure)
        notes = []
        if self.base is not None and not self.base.agree:
            notes.append("llama.cpp computes something else than transformers")
        elif self.blocks != "yes":
            notes.append(plain(self.blocks))
        if self.window:
            notes.append(f"for texts of up to {self.window} tokens: llama.cpp has no attention window for it")
        if self.layers is not None and self.base is not None and self.base.agree:
            for names, words in (
                (self.layers.ignored, "llama.cpp ignores adapters of"),
                (self.layers.wrong, "llama.cpp applies adapters in another way to"),
                (self.layers.placeless, "no tensor for adapters of"),
                (self.layers.untrainable, "no adapter learns at"),
                (self.layers.routers, "left out: routers"),
            ):
                if names:
                    notes.append(f"{words} {', '.join(dict.fromkeys(f'`{_kind(name)}`' for name in names))}")
        return "; ".join(notes)

    @property
    def cells(self) -> tuple[str, ...]:
        """Of the table."""
        distances = tuple("–" if each is None else _figure(each) for each in (self.base, self.adapted, self.merged))
        blocks = "–" if self.failure else "yes" if self.blocks == "yes" else "no"
        mark = "✓" if self.green else "✗"
        return (mark, f"`{self.kind}`", self.names, blocks, *distances, plain(self.onnx), self.note)

    @property
    def line(self) -> str:
        """For the terminal."""
        return " | ".join(self.cells)


def page(rows: Sequence[Row]) -> str:
    """docs/bases.md."""
    good = [row for row in rows if row.green]
    kinds = len({row.kind for row in good})
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "peft", "torch"))
    head = ("", "Model type", "Models, or the class", "Blocks", "Base", "Separate", "Merged", "ONNX", "To know")
    lines = [
        "# Which bases work",
        "",
        "`make bases` measures and writes this page. It takes every model type that both llama.cpp's converter and",
        "transformers know as a causal language model.",
        "",
        f"**{len(good)} of {len(rows)} rows work in full: {kinds} model types.**",
        "",
        "## What was measured",
        "",
        "Of each row a *tiny random model*: few layers, at least one of each kind, the real sizes of heads, scales,",
        "caps and rotary embeddings, and windows that are shorter than the prompt. Not the published weights.",
        "What was asked:",
        "",
        "* **Blocks**: the model trains on the blocks that devices run. Quantised to Q8_0, each weight comes back",
        "  to the bit, the packed model answers alike, and each adapted layer gets a gradient.",
        "* **Base**: the largest KL divergence of llama.cpp's next-token distribution from torch's, in nats,",
        f"  over {len(PROMPT)} positions, at F32.",
        "* **Separate**: the same under a random adapter of all that llama.cpp can adapt: linear layers, experts,",
        "  embedding and output where they are two matrices. Each is also asked alone.",
        "* **Merged**: the same for the model with a random adapter of all of these in its weights.",
        "* **ONNX**: the larger of both divergences of ONNX Runtime from torch at FP32, bare and under a separate",
        "  adapter. `no` means that the model builder of ONNX Runtime GenAI doesn't know the type.",
        "",
        f"✓ means that all of these but ONNX are so, with KL below {AGREE_KL:g} and logits within {AGREE_ERROR:.0%}.",
        "`edgekit train` makes the same check of the configuration that it is given. It refuses a base that llama.cpp",
        "computes in another way before training, and tells when it can't check one. Where llama.cpp lacks a base's",
        "attention window, the bundle's context is no longer than the window, so that no device serves more.",
        "",
        f"Versions: {PACKAGE} {engine_version()}, {versions}.",
        "",
        "## Rows",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    ordered = [*good, *(row for row in rows if not row.green)]
    return "\n".join(
        [
            *lines,
            *(f"| {' | '.join(cell.replace('|', '/') for cell in row.cells)} |" for row in ordered),
            "",
            *section(),
        ]
    )


def plain(reason: str) -> str:
    """A reason without what only a programmer reads."""
    text = re.sub(r"\b(\w+Error|AssertionError|Exception): ", "", reason)
    text = text.replace("error loading model: ", "")
    text = re.sub(r"Can not map tensor '([^']+)'", r"it doesn't know `\1`", text)
    return re.sub(r": use another base", "", text)[:240]


def _figure(found: Distance) -> str:
    return "not a number" if found.kl == float("inf") else f"{found.kl:.0e}"


def _kind(name: str) -> str:
    return ".".join(part for part in name.split(".")[-2:] if not part.isdecimal())
