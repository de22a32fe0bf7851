"""GGUF files as bases: checked, and unpacked to a float Hugging Face folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgekit.bases.digests import FAMILY_DIGITS, remembered_digest
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.gguf.split import joined_header
from edgekit_exporters.hf.codeless import link
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_header import check_base_header
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.vocabulary_header import PIECES, TOKENIZER
from edgekit_runtime.prompts.template import KEY_NAMES, TemplateFacts

KEY_TOKENIZER, KEY_SPACE = f"{TOKENIZER}.model", f"{TOKENIZER}.add_space_prefix"
SPACE = "\u2581"  # how pieces spell one


def base_header(path: Path) -> GgufFile:
    """The header of a GGUF file that can be a base; of one in several files, that of the whole.

    Raises:
        InputError: it can't be one, or one of its files is missing.
    """
    header = joined_header(path)
    metadata = header.metadata
    if metadata.get("general.type", "model") != "model" or "tokenizer.ggml.tokens" not in metadata:
        raise InputError(
            f"{path} is not a base model but a {metadata.get('general.type', 'part of one')}",
            "give the GGUF of a whole model",
        )
    check_base_header(header)
    return header


def unpacked(path: Path, family: str) -> Path:
    """The float Hugging Face folder of a GGUF: what its blocks stand for, its config and tokenizer."""
    digest, metadata = remembered_digest(path), read_gguf(path).metadata
    # What transformers alone would make otherwise: one template of several, and other spaces between pieces.
    several = "-templates" if KEY_NAMES in metadata else ""
    pieces = "-pieces" if metadata.get(KEY_TOKENIZER) == PIECES else ""
    target = cache_folder("unpacked") / f"{family}-{digest[:FAMILY_DIGITS]}{several}{pieces}"
    return cached(target, lambda temporary: _unpack(path, temporary))


def gguf_tokenizer(path: Path) -> Any:
    """A GGUF file's tokenizer for transformers, which reads text as llama.cpp does; its folder has no other."""
    from transformers import AutoTokenizer

    metadata = read_gguf(path).metadata
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    if KEY_NAMES in metadata:
        tokenizer.chat_template = dict(TemplateFacts.read(read_gguf(path)).sources)
    if metadata.get(KEY_TOKENIZER) == PIECES:
        _put_spaces(tokenizer.backend_tokenizer, prefix=bool(metadata.get(KEY_SPACE, True)))
    return tokenizer


def _put_spaces(tokenizer: Any, *, prefix: bool) -> None:
    """Put a space before each text, also behind control tokens; transformers puts one before the first alone."""
    from tokenizers import normalizers

    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    tokenizer.pre_tokenizer = None


def _unpack(path: Path, destination: Path) -> None:
    alone = tempfile.TemporaryDirectory(prefix="edgekit-base-")  # not with what else lies in its folder
    try:
        with stage(f"unpacking {path.name} to float weights (once)"), alone as folder:
            file = Path(folder, path.name)
            link(path, file)
            gguf_tokenizer(file).save_pretrained(destination)
            model = _float_model(file)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(
            f"transformers can't read {path} ({str(error).splitlines()[0]})",
            "use the model's Hugging Face folder as the base",
        ) from None
    model.save_pretrained(destination)


def _float_model(path: Path) -> Any:
    """The model that a GGUF's blocks stand for; by our own reader where it knows the architecture, which is faster."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from edgekit.bases.quantized import dequantized_state

    config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    config.__dict__.pop("quantization_config", None)
    try:
        state = dequantized_state(path, config)
    except InputError:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False, dtype=torch.float32
        )
        # It is float now: without this, save_pretrained refuses it as a quantised model.
        model.hf_quantizer = None
        model.config.__dict__.pop("quantization_config", None)
        return model
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=torch.float32)
    model.load_state_dict(state, assign=True, strict=False)  # a tied output matrix has no entry
    model.tie_weights()
    return model
