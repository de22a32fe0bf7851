"""What a process takes that runs a base: its weights, what requests keep, and everything else.

Weights are the base's files: llama.cpp maps them, and the kernel reads pages that it has dropped again.  Where kernels
want weights in another order, the engine keeps a copy, and the pages of the originals are not read again; they are not
counted.  The figures below are fitted on peaks of resident memory, see ``benchmarks/plan_accuracy.py``.
"""

from __future__ import annotations

from edgekit_runtime.engines.base import DEFAULT_CONTEXT, PREFILL_CHUNK, SCORED_CHUNK, SHARED_CONTEXT
from edgekit_runtime.formats.model_facts import FLOAT_BYTES, ModelFacts

MIB = 1024 * 1024
RUNTIME_BYTES = 67 * MIB  # Python, NumPy, the code of runtime and engine
ONNX_RUNTIME_BYTES = 130 * MIB  # the same with ONNX Runtime and its buffers
VOCABULARY_BYTES = 270  # of a token: its text in Python and in the engine, its logits
COPIES = 2  # of a chunk's activations: what a layer reads and what it writes


def default_context(longest: int, sequences: int = 1) -> int:
    """Tokens that each of so many requests at once can hold, unless told otherwise; ``longest`` is the base's own."""
    return min(longest, DEFAULT_CONTEXT if sequences == 1 else SHARED_CONTEXT)


def running_bytes(facts: ModelFacts) -> int:
    """What is needed beside weights and cache, of a base that llama.cpp runs."""
    buffers = COPIES * PREFILL_CHUNK * facts.activations * FLOAT_BYTES
    return RUNTIME_BYTES + VOCABULARY_BYTES * facts.vocabulary + buffers


def score_bytes(facts: ModelFacts) -> int:
    """More of it for each token of a request's context: attention scores, where flash attention is off."""
    return SCORED_CHUNK * facts.heads * FLOAT_BYTES if facts.has_scores else 0
