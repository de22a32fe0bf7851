"""Logits of llama.cpp for one prompt, bare and under adapters: what a device computes, at full precision.

``python -m edgekit.bases.probe.engine JOBS OUT`` runs in a process of its own: llama.cpp ends the process where it
finds a model impossible.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from llama_cpp import llama_cpp as llama
from numpy.typing import NDArray

from edgekit_runtime.engines.llama.library import engine_errors, model_parameters, reason
from edgekit_runtime.errors import InputError

SECONDS = 600
REFUSED = 3  # exit code: the last line of stderr says why


@dataclass(frozen=True)
class Job:
    """A GGUF model, and the LoRA files to ask it under; None asks it bare."""

    model: Path
    adapters: tuple[Path | None, ...] = (None,)


def ask(jobs: Sequence[Job], tokens: Sequence[int]) -> list[list[NDArray[np.float32]]]:
    """Logits [tokens, vocabulary] by job and adapter.

    Raises:
        InputError: llama.cpp refuses a model or an adapter, takes too long or dies of it.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-probe-") as scratch:
        asked, answered = Path(scratch, "jobs.json"), Path(scratch, "logits.npz")
        written = [[str(job.model), [each and str(each) for each in job.adapters]] for job in jobs]
        asked.write_text(json.dumps({"jobs": written, "tokens": list(tokens)}), encoding="utf-8")
        command = [sys.executable, "-m", __name__, str(asked), str(answered)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError("llama.cpp takes too long over this model", "use another base") from None
        if done.returncode:
            problem = done.stderr.strip().splitlines()[-1:] if done.returncode == REFUSED else []
            raise InputError((problem or ["llama.cpp dies of this model"])[0], "use another base")
        content = np.load(answered, allow_pickle=False)
        return [[content[f"{at}-{n}"] for n in range(len(job.adapters))] for at, job in enumerate(jobs)]


class EngineModel:
    """A GGUF model in llama.cpp, with a float32 KV cache."""

    def __init__(self, path: Path, *, context: int) -> None:
        """Load it.

        Raises:
            InputError: llama.cpp refuses the file.
        """
        with engine_errors():
            self._model = llama.llama_model_load_from_file(str(path).encode(), model_parameters())
            if not self._model:
                raise InputError(f"llama.cpp can't load this model{reason()}", "use another base")
            settings = llama.llama_context_default_params()
            settings.n_ctx = settings.n_batch = settings.n_ubatch = context
            settings.n_threads = settings.n_threads_batch = 1
            settings.type_k = settings.type_v = llama.GGML_TYPE_F32
            settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
            self._context = llama.llama_init_from_model(self._model, settings)
            if not self._context:
                llama.llama_model_free(self._model)
                raise InputError(f"llama.cpp can't run this model{reason()}", "use another base")
        self._vocabulary = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model)))

    def __enter__(self) -> Self:
        """The model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free it."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)

    def logits(self, tokens: Sequence[int], adapter: Path | None = None) -> NDArray[np.float32]:
        """[tokens, vocabulary], under a LoRA file where one is given.

        Raises:
            InputError: llama.cpp refuses the adapter, or fails.
        """
        with engine_errors():
            handles = [] if adapter is None else [llama.llama_adapter_lora_init(self._model, str(adapter).encode())]
            if not all(handles):
                raise InputError(f"llama.cpp can't load an adapter of this model{reason()}", "merge the adapter")
            count = len(handles)
            # Once for each prompt, and no adapter is freed before the model: llama.cpp knows by addresses alone whether
            # it can use its last graph again.
            llama.llama_set_adapters_lora(
                self._context,
                (llama.llama_adapter_lora_p_ctypes * count)(*handles),
                count,
                (ctypes.c_float * count)(*[1.0] * count),
            )
            llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
            return self._decoded(tokens)

    def _decoded(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for at, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, 1
                batch.seq_id[at][0] = 0
            if llama.llama_decode(self._context, batch):
                raise InputError(f"llama.cpp fails to compute this model{reason()}", "use another base")
            rows = [llama.llama_get_logits_ith(self._context, at) for at in range(len(tokens))]
            return np.stack([np.ctypeslib.as_array(row, (self._vocabulary,)).copy() for row in rows])
        finally:
            llama.llama_batch_free(batch)


def main(asked: str, answered: str) -> int:
    """Answer the jobs of a file."""
    wanted = json.loads(Path(asked).read_text(encoding="utf-8"))
    tokens: list[int] = wanted["tokens"]
    found: dict[str, Any] = {}
    try:
        for at, (model, adapters) in enumerate(wanted["jobs"]):
            with EngineModel(Path(model), context=len(tokens)) as engine:
                for number, adapter in enumerate(adapters):
                    found[f"{at}-{number}"] = engine.logits(tokens, adapter and Path(adapter))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    np.savez(answered, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
