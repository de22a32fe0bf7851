"""Runs beside llama.cpp's converters, in a process of its own: they bring their own copy of the gguf package.

``python -P in_converter.py TOOLS convert ARGUMENTS…`` converts a Hugging Face folder, ``… map FOLDER FILE`` writes
what the conversion does to each parameter, ``… plain FOLDER…`` does both without a vocabulary, for models that only
compute.  ``… outline ARGUMENTS…`` converts without weights: the file's header, then the length that the file would
have, in eight bytes.  It imports nothing of ours.

Three things are done to a conversion.  The configuration is what ``config.json`` says, and transformers' own account of
it only where the file says nothing: transformers 5 renames keys that the converters read.  Weights of multi-token
prediction that the folder doesn't have are not asked for.  And where layers take keys and values from earlier ones
(Gemma 3n), the weights that published checkpoints have for them, transformers drops and llama.cpp wants to find are
zeros: nobody reads them.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

SOURCE, ZERO, ONE, TWO = "source", "zero", "one", "two"
MAP, GGUF, ERROR = "map.npz", "plain.gguf", "error.txt"  # what ``plain`` leaves in a folder
MERGED = "merged"  # in a folder: the same model with other weights
SECONDS = 600  # for one of several folders, on a busy machine
SHARED = re.compile(r"(.*\blayers\.)0(\.self_attn\.(?:k_proj|v_proj|k_norm)\.weight)")  # in layers that share
SKIPPED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")  # as in ModelBase.prepare_tensors


def main(tools: str, verb: str, *arguments: str) -> None:
    """Convert, or write the map or the outline."""
    sys.path.insert(0, tools)
    is_projector = "--mmproj" in arguments
    if not is_projector:  # image encoders are read under transformers' names: Pixtral's rope would be another one
        _conversion().ModelBase.load_hparams = staticmethod(_configuration)
        _conversion().ModelBase.index_tensors = _with_shared(_conversion().ModelBase.index_tensors)
    if verb == "map":
        folder, file = map(Path, arguments)
        with torch.inference_mode():
            _write_map(folder, file)
        return
    if verb == "plain":
        importlib.import_module("transformers.models.auto.modeling_auto")  # once for all
        for folder in map(Path, arguments):
            _apart(folder)
        return
    converter = importlib.import_module("convert_hf_to_gguf")
    if verb == "outline":
        importlib.import_module("gguf").GGUFWriter.write_tensors_to_file = write_outline
    folder = Path(arguments[0])
    options = ["--no-mtp"] if not is_projector and _lacks_mtp(_model_class(folder), folder) else []
    sys.argv = ["convert_hf_to_gguf.py", *arguments, *options]
    converter.main()


def write_outline(writer: Any, *, progress: bool = False) -> None:
    """Stands in for ``GGUFWriter.write_tensors_to_file``, for a file that isn't split."""
    del progress
    writer.write_ti_data_to_file()
    ((file, tensors),) = zip(writer.fout, writer.tensors, strict=True)
    alignment = writer.data_alignment
    size = writer.ggml_pad(file.tell(), alignment)
    size += sum(writer.ggml_pad(tensor.nbytes, alignment) for tensor in tensors.values())
    file.write(size.to_bytes(8, "little"))


def _apart(folder: Path) -> None:
    """Convert one folder in a process of its own, so that what one model does harms no other."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    here = folder
    try:
        signal.alarm(SECONDS)
        with torch.inference_mode():
            _write_map(folder, folder / MAP)
            _write_plain(folder)
            here = folder / MERGED
            if here.is_dir():
                _write_plain(here)
    except BaseException as error:
        (here / ERROR).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    finally:
        sys.stderr.flush()
        os._exit(0)


def _write_plain(folder: Path) -> None:
    """The model at F32, with as many tokens as its config says and no text for any of them."""
    import gguf

    model_class = _model_class(folder)
    if _lacks_mtp(model_class, folder):
        model_class.no_mtp = True
    converter = model_class(folder, gguf.LlamaFileType.ALL_F32, folder / GGUF)
    converter.dir_model = _with_tokens(folder, folder / MAP, int(converter.hparams["vocab_size"]))

    def without_text(each: Any) -> None:
        writer = each.gguf_writer
        writer.add_tokenizer_model("none")
        for fields in writer.kv_data:
            fields.pop(f"{writer.arch}.vocab_size", None)
        writer.add_vocab_size(int(converter.hparams["vocab_size"]))

    for each in (converter, getattr(converter, "impl", converter)):  # Mistral's converter has another one in it
        each.set_vocab, each.dir_model = functools.partial(without_text, each), converter.dir_model
    converter.write()


def _with_shared(index_tensors: Any) -> Any:
    """``ModelBase.index_tensors``, which also finds what :func:`_shared` names."""

    @functools.wraps(index_tensors)
    def indexed(converter: Any, *arguments: Any, **options: Any) -> Any:
        tensors = index_tensors(converter, *arguments, **options)
        for name, like in _shared(converter, tensors).items():
            tensors[name] = lambda value=tensors[like]: torch.zeros(value().shape)
        return tensors

    return indexed


def _shared(converter: Any, names: Collection[str]) -> dict[str, str]:
    """Weights that llama.cpp wants and ``names`` lack, each with one of the same kind in the first layer."""
    import gguf

    if converter.model_arch != gguf.MODEL_ARCH.GEMMA3N:
        return {}
    config = _text(converter.hparams)
    layers = int(config["num_hidden_layers"])
    wanted = {
        f"{match[1]}{layer}{match[2]}": match[0]
        for match in filter(None, map(SHARED.fullmatch, names))
        for layer in range(layers - int(config["num_kv_shared_layers"]), layers)
    }
    return {name: like for name, like in wanted.items() if name not in names}


def _conversion() -> Any:
    return importlib.import_module("conversion")


def _configuration(folder: Path, is_mistral_format: bool = False) -> dict[str, Any]:
    """What ``config.json`` says, completed with transformers' defaults."""
    del is_mistral_format
    from transformers import AutoConfig

    raw: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        known = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except Exception:  # a type that transformers doesn't know: the converter may
        known = {}
    config = _over(raw, known)
    if not config.get("architectures"):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        config["architectures"] = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]]
    return _as_written_before_5(config)


def _over(raw: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    both = {**known, **raw}
    for key, value in raw.items():
        if isinstance(value, dict) and isinstance(known.get(key), dict):
            both[key] = _over(value, known[key])
    return both


def _as_written_before_5(config: dict[str, Any]) -> dict[str, Any]:
    """Under the names that the converters read, where transformers 5 wrote the file itself."""
    rope = config.get("rope_parameters") or {}
    kind = config.get("model_type")
    if kind == "gpt_neox":
        config.setdefault("rotary_pct", rope.get("partial_rotary_factor", 0.25))
    if kind == "gpt2":
        config.setdefault("n_ctx", config.get("n_positions", 1024))
    if kind == "falcon" and config.get("multi_query") and not config.get("new_decoder_architecture"):
        config["num_kv_heads"] = 1  # transformers counts as many as there are heads, and has one
    if kind == "nemotron_h" and "moe" not in (config.get("layers_block_type") or ["moe"]):
        config.pop("num_experts_per_tok", None)  # transformers has one where there are no experts
    if kind in ("granitemoehybrid", "bamba"):
        names = {"linear_attention": "mamba", "full_attention": "attention"}
        config["layer_types"] = [names.get(each, each) for each in config.get("layer_types") or []]
    return config


def _model_class(folder: Path) -> Any:
    conversion = _conversion()
    architecture = conversion.get_model_architecture(_configuration(folder), conversion.ModelType.TEXT)
    return conversion.get_model_class(architecture)


def _lacks_mtp(model_class: Any, folder: Path) -> bool:
    from safetensors import safe_open

    if not model_class.supports_mtp_export:
        return False
    files: list[Any] = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
    names = [name for file in files for name in file.keys()]  # noqa: SIM118 - it is no mapping
    layers = int(_text(_configuration(folder)).get("num_hidden_layers", 0))
    return not any("mtp." in name or f".layers.{layers}." in name for name in names)


def _text(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, **config.get("text_config", {})}


def _write_map(folder: Path, file: Path) -> None:
    """Feed the converter with tensors that hold their own element numbers, and see where they come out."""
    import gguf
    from transformers import AutoConfig, AutoModelForCausalLM

    model_class = _model_class(folder)
    if _lacks_mtp(model_class, folder):
        model_class.no_mtp = True
    converter = model_class(folder, gguf.LlamaFileType.ALL_F32, file, eager=True)
    converter.dir_model = _with_tokens(folder, file, int(converter.hparams["vocab_size"]))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder, trust_remote_code=False), trust_remote_code=False
        )
    buffers = {name: value for name, value in model.named_buffers() if name in model.state_dict()}
    shapes = {name: tuple(value.shape) for name, value in (*model.named_parameters(), *buffers.items())}
    depth = max(map(len, shapes.values()))
    passes = {kind: dict(_through(converter, model, shapes, kind)) for kind in (ZERO, ONE)}
    factors = {name: _factors(*(passes[kind][name] for kind in (ZERO, ONE))) for name in passes[ZERO]}
    for kind in (ONE, TWO, SOURCE, *range(depth)):
        passes[kind] = dict(_through(converter, model, shapes, kind, factors))
    tensors = [
        _decoded(name, {kind: each[name] for kind, each in passes.items()}, factors[name]) for name in passes[ZERO]
    ]
    arrays = [value for each in tensors for value in each.pop("arrays")]
    derived = [name for name, _ in converter.generate_extra_tensors()]
    for name, like in _shared(converter, shapes).items():
        block = next(int(part) for part in name.split(".") if part.isdecimal())
        derived += [tensor for tensor, _ in converter.modify_tensors(torch.zeros(shapes[like]), name, block)]
    facts = {
        "architecture": gguf.MODEL_ARCH_NAMES[converter.model_arch],
        "parameters": {name: list(shape) for name, shape in shapes.items()},
        "tensors": tensors,
        "derived": derived,
    }
    with file.open("wb") as stream:
        np.savez_compressed(
            stream, facts=np.array(json.dumps(facts)), **{str(n): each for n, each in enumerate(arrays)}
        )


def _with_tokens(folder: Path, file: Path, count: int) -> Path:
    """A folder with a tokenizer: a stand-in where there is none, as Gemma's converter asks how many tokens it has."""
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return folder
    made = file.parent / f"{file.name}-tokens"
    made.mkdir(exist_ok=True)
    document = {"model": {"vocab": list(range(count))}, "added_tokens": []}
    (made / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return made


def _through(
    converter: Any,
    model: Any,
    shapes: dict[str, tuple[int, ...]],
    kind: str | int,
    factors: Mapping[str, np.ndarray | None] | None = None,
) -> Iterator[Any]:
    """Yield each GGUF tensor with the form of what came out, rows divided by ``factors``, for probes of one kind."""
    from transformers.core_model_loading import revert_weight_conversion

    state = {name: _probe(number, shape, kind) for number, (name, shape) in enumerate(shapes.items())}
    for written, value in revert_weight_conversion(model, state).items():
        kept = converter.filter_tensors((written, lambda value=value: value))
        if kept is None or written.endswith(SKIPPED):
            continue
        name, _ = kept
        block = next((int(part) for part in name.split(".") if part.isdecimal()), None)
        for tensor, data in converter.modify_tensors(value, name, block):
            yield tensor, _form(data, None if factors is None else factors[tensor])


def _probe(number: int, shape: tuple[int, ...], kind: str | int) -> torch.Tensor:
    """A tensor that takes no memory: all the same, or its own number along one dimension."""
    constants: dict[str | int, int] = {ZERO: 0, ONE: 1, TWO: 2, SOURCE: number}
    if isinstance(kind, str) or kind >= len(shape):
        return torch.tensor(float(constants.get(kind, 0)), dtype=torch.float64).expand(shape)
    axis = kind
    numbers = torch.arange(shape[axis], dtype=torch.float64)
    return numbers.view([-1 if each == axis else 1 for each in range(len(shape))]).expand(shape)


def _form(data: Any, factors: np.ndarray | None = None) -> dict[str, Any]:
    """Values by row where all columns are alike, by column where all rows are; neither where the two are mixed."""
    shape = list(data.shape)
    flat = np.asarray(data, dtype=np.float64)
    flat = flat.reshape(-1, 1) if flat.squeeze().ndim < 2 else flat.reshape(-1, flat.shape[-1])
    if factors is not None:
        whole = np.rint(flat / factors[:, None])
        flat = whole if np.allclose(whole * factors[:, None], flat, rtol=1e-9) else flat
    rows = flat[:, 0].copy() if (flat == flat[:, :1]).all() else None
    columns = flat[0].copy() if (flat == flat[:1]).all() else None
    return {"shape": shape, "rows": rows, "columns": columns}


def _factors(zero: dict[str, Any], one: dict[str, Any]) -> np.ndarray | None:
    """What the conversion multiplies each row with, where rows differ (Falcon-H1) and nothing is added."""
    if zero["rows"] is None or one["rows"] is None or zero["rows"].any() or not one["rows"].all():
        return None
    return None if (one["rows"] == one["rows"][0]).all() else one["rows"]


def _decoded(name: str, forms: dict[str | int, dict[str, Any]], factors: np.ndarray | None) -> dict[str, Any]:
    """One tensor: from which parameter each row is, which row of it, in which order its columns stand."""
    made = {"name": name, "shape": forms[ZERO]["shape"], "arrays": [], "known": False}
    zero, one, two = (_constant(forms[kind]) for kind in (ZERO, ONE, TWO))
    if zero is None or one is None or two is None or one == zero or abs(two - zero - 2 * (one - zero)) > 1e-9:
        return made
    scale, shift = one - zero, zero

    def numbers(values: np.ndarray) -> np.ndarray:
        return np.rint((values - shift) / scale).astype(np.int32)

    if forms[SOURCE]["rows"] is None or any(
        forms[axis]["rows"] is None and forms[axis]["columns"] is None for axis in forms if isinstance(axis, int)
    ):
        return made
    axes = [kind for kind in forms if isinstance(kind, int)]
    by_row = {axis: numbers(forms[axis]["rows"]) for axis in axes if forms[axis]["rows"] is not None}
    by_column = {axis: numbers(forms[axis]["columns"]) for axis in axes if axis not in by_row}
    if len(by_column) > 1:
        return made
    return made | {
        "known": True,
        "scale": scale,
        "shift": shift,
        "has_factors": factors is not None,
        "row_axes": [axis for axis in by_row if by_row[axis].any()],
        "column_axis": next(iter(by_column), None),
        "arrays": [
            numbers(forms[SOURCE]["rows"]),
            *(value for value in by_row.values() if value.any()),
            *by_column.values(),
            *([] if factors is None else [factors]),
        ],
    }


def _constant(form: dict[str, Any]) -> float | None:
    values = form["rows"]
    return float(values[0]) if values is not None and len(values) and (values == values[0]).all() else None


if __name__ == "__main__":
    main(*sys.argv[1:])
