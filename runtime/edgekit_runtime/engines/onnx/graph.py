"""An ONNX graph in a session, and whether it is one that edgekit makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_header import MOST_WIDTH
from edgekit_runtime.formats.onnx_base import LOGITS_FROM, LORA_A

PAST = re.compile(r"past_key_values\.\d+\.(key|value)")
STATE = re.compile(r"past\.\d+\.\w+")
POSITIONS = "position_ids"


def open_session(graph: Path, threads: int) -> Any:
    """ONNX Runtime's session on the CPU.

    Raises:
        InputError: onnxruntime is missing or refuses the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "this bundle runs on ONNX Runtime, which is not installed", "pip install 'edgekit-runtime[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(
            f"onnxruntime refuses {graph} ({str(error).splitlines()[0]})", "copy or export it again"
        ) from None


def cache_inputs(session: Any, graph: Path) -> tuple[list[Any], list[Any]]:
    """The graph's inputs for what it keeps of a sequence.

    Returns:
        The KV cache's, float32 [sequences, heads, tokens, head size], and recurrent states', float32 [sequences, ...].

    Raises:
        InputError: they are something else, or what is asked for besides is not there.
    """
    inputs = {each.name: each for each in session.get_inputs()}
    found = [each for name, each in inputs.items() if PAST.fullmatch(name)]
    states = [each for name, each in inputs.items() if STATE.fullmatch(name)]
    others = inputs.keys() - {each.name for each in (*found, *states)}
    outputs = {each.name for each in session.get_outputs()}
    sound = (
        others - {POSITIONS} == {"input_ids", "attention_mask"}
        and LOGITS_FROM in {each.name for each in session.get_overridable_initializers()}
        and outputs >= {"logits", *(present_name(each.name) for each in (*found, *states))}
        and all(each.type == "tensor(float)" and len(each.shape) == 4 for each in found)
        and all(each.type == "tensor(float)" and len(each.shape) > 1 for each in states)
        and all(_is_size(size) for each in found for size in each.shape[1::2])
        and all(_is_size(size) for each in states for size in each.shape[1:])
    )
    if not sound:
        raise InputError(f"{graph} is no graph of a language model as edgekit makes it", "copy or export it again")
    return found, states


def present_name(past: str) -> str:
    """The output that an input takes next time."""
    return past.replace("past_key_values", "present").replace("past", "present")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 < value <= MOST_WIDTH


def require_tiles(graph: Path, inputs: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a graph from before ranks stood in tiles; raises InputError."""
    if any(len(shape) != 3 for name, shape in inputs.items() if name.endswith(LORA_A)):
        raise InputError(f"{graph} is of an earlier edgekit", "export it again, or serve one request at a time")
