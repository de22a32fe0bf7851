"""Whether llama.cpp computes embeddings that stand before a prompt as transformers does: asked of a tiny model.

Some bases scale embeddings: the one on its way into the layers, the other where tokens are looked up.  Some look up
more of a token than its embedding.  A table of them would grow old, so the engine itself is asked.

``python -m edgekit.bases.virtual_probe MODEL ROWS OUT`` runs in a process of its own, as llama.cpp may end it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama_cpp import llama_cpp as llama
from numpy.typing import NDArray

from edgekit.bases.probe.compare import Logits, distance
from edgekit.bases.probe.engine import REFUSED, SECONDS, EngineModel
from edgekit.bases.probe.measure import PROMPT, Written, write_tiny
from edgekit.bases.probe.shrunk import WINDOW, shrunk
from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import CONVERSION
from edgekit_exporters.conversion.tensor_map import plain_ggufs
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

ROWS = 4
TOKENS = PROMPT[: WINDOW - ROWS]  # within the window of a base that the engine may have none for


@dataclass(frozen=True)
class Finding:
    """What was found: largest divergence of a position in nats, or why nothing could be found out."""

    agrees: bool = True
    kl: float = 0.0
    unknown: str | None = None


def check_virtual_tokens(base: Base) -> None:
    """Refuse a base that llama.cpp computes otherwise when embeddings stand before the prompt.

    Raises:
        InputError: it does.
    """
    found = virtual_finding(base.folder)
    if found.unknown is not None:
        log.warning(
            "not checked whether llama.cpp reads virtual tokens on %s as torch does: %s; export compares both on the"
            " evaluation rows",
            *(base.name, found.unknown),
        )
    elif not found.agrees:
        raise InputError(
            f"llama.cpp computes virtual tokens before a prompt otherwise than transformers on {base.name}"
            f" (KL {found.kl:.2g} on a small model of it)",
            "train a LoRA, or use another base",
        )


def virtual_finding(folder: Path) -> Finding:
    """Of the text model in a Hugging Face folder; made once for a configuration and these versions."""
    try:
        small = shrunk(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except Exception as error:  # of a configuration with rules of its own
        return Finding(unknown=f"no small model can be made of it ({error})")
    key = hashlib.sha256(json.dumps([small, CONVERSION], sort_keys=True).encode() + Path(__file__).read_bytes())
    file = cache_folder("probes") / f"virtual-{key.hexdigest()[:24]}.json"
    found = Finding(**json.loads(cached(file, lambda target: _make(small, target)).read_text(encoding="utf-8")))
    if found.unknown is not None:
        file.unlink(missing_ok=True)  # a busy machine may be why
    return found


def _make(small: dict[str, Any], file: Path) -> None:
    with stage("checking that the engine reads virtual tokens as training does (once)"):
        file.write_text(json.dumps(asdict(_found(small))), encoding="utf-8")


def _found(small: dict[str, Any]) -> Finding:
    with tempfile.TemporaryDirectory(prefix="edgekit-probe-") as scratch:
        try:
            written = write_tiny(small, Path(scratch, "0"))
            ((file, _),) = plain_ggufs([written.folder])
            if isinstance(file, str):
                return Finding(unknown=f"llama.cpp's converter refuses a small model of it ({file})")
            rows = _rows(written)
            measured = distance(_torch_logits(written, rows), _ask(file, rows, Path(scratch)))
        except InputError as error:
            return Finding(unknown=str(error))
        except Exception as error:  # a shrunk configuration may contradict itself, or take no embeddings
            return Finding(unknown=f"no small model can be made of it ({error})")
        return Finding(measured.agree, measured.kl)


def _rows(written: Written) -> torch.Tensor:
    """Rows about as large as the embeddings that layers get, and none of them."""
    ids = torch.tensor(PROMPT[-ROWS:])
    with torch.no_grad():
        near: torch.Tensor = written.model.get_input_embeddings()(ids)
    noise = torch.randn(near.shape, generator=torch.Generator().manual_seed(2))
    return near + 0.5 * near.std() * noise


def _torch_logits(written: Written, rows: torch.Tensor) -> Logits:
    with torch.no_grad():
        tokens = written.model.get_input_embeddings()(torch.tensor(TOKENS))
        whole = torch.cat([rows, tokens])[None]
        logits: Logits = written.model(inputs_embeds=whole, use_cache=False).logits[0, ROWS:].float().numpy()
    return logits


def _ask(model: Path, rows: torch.Tensor, scratch: Path) -> Logits:
    asked, answered = scratch / "rows.npy", scratch / "logits.npy"
    np.save(asked, rows.numpy())
    command = [sys.executable, "-m", __name__, str(model), str(asked), str(answered)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError("llama.cpp takes too long over a small model of it", "use another base") from None
    if done.returncode:
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode == REFUSED else []
        raise InputError((problem or ["llama.cpp dies of virtual tokens"])[0], "train a LoRA")
    logits: Logits = np.load(answered, allow_pickle=False)
    return logits


class _Model(EngineModel):
    """A model that reads rows before tokens."""

    def after(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the tokens, [tokens, vocabulary]."""
        batch = llama.llama_batch_init(len(rows), rows.shape[1], 1)
        try:
            batch.n_tokens = len(rows)
            values = np.ascontiguousarray(rows, np.float32)
            for at in range(values.size):
                batch.embd[at] = float(values.flat[at])
            _fill(batch, 0, len(rows))
            if llama.llama_decode(self._context, batch):
                raise InputError("llama.cpp takes no embeddings for this model", "train a LoRA")
        finally:
            llama.llama_batch_free(batch)
        batch = llama.llama_batch_init(len(TOKENS), 0, 1)
        try:
            batch.n_tokens = len(TOKENS)
            for at, token in enumerate(TOKENS):
                batch.token[at] = token
            _fill(batch, len(rows), len(TOKENS))
            if llama.llama_decode(self._context, batch):
                raise InputError("llama.cpp fails to compute this model", "train a LoRA")
            found = [llama.llama_get_logits_ith(self._context, at) for at in range(len(TOKENS))]
            return np.stack([np.ctypeslib.as_array(row, (self._vocabulary,)).copy() for row in found])
        finally:
            llama.llama_batch_free(batch)


def _fill(batch: Any, start: int, count: int) -> None:
    for at in range(count):
        batch.pos[at], batch.n_seq_id[at], batch.logits[at] = start + at, 1, 1
        batch.seq_id[at][0] = 0


def main(model: str, asked: str, answered: str) -> int:
    """Read the rows, and answer."""
    rows = np.load(asked, allow_pickle=False)
    try:
        with _Model(Path(model), context=len(rows) + len(TOKENS)) as engine:
            np.save(answered, engine.after(rows))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
