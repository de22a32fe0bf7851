"""The GGUF of a prompt adapter: its rows, which llama.cpp's own loader of LoRA refuses."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch

from edgekit_runtime.formats.prompt_adapter import GENERAL_TYPE, KEY_VIRTUAL_TOKENS, ROWS


def write_prompt(rows: torch.Tensor, architecture: str, destination: Path) -> None:
    """Write rows, [virtual tokens, width], as float32, with nothing but what an engine needs."""
    writer = gguf.GGUFWriter(destination, architecture)
    writer.add_string(gguf.Keys.General.TYPE, GENERAL_TYPE)
    writer.add_uint32(KEY_VIRTUAL_TOKENS, len(rows))
    writer.add_tensor(ROWS, np.ascontiguousarray(rows.numpy(), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
