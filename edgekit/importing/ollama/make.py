"""Models of Ollama as bundles, or their adapters as files for devices that have the base.

Where all pieces are GGUF files their weights are copied byte for byte, and nothing is unpacked.  There are no
evaluation rows of a trained model, so nothing can be proven of them; what is tried, in a process of its own, is that
the engine runs them and that each adapter changes what the base says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.bases.resolve import check_base, gguf_family
from edgekit.bases.template import check_template, template_tokens
from edgekit.exporting.versions import version_now
from edgekit.importing.ollama.ends import end_tokens
from edgekit.importing.ollama.model import OllamaModel
from edgekit.importing.ollama.pieces import adapter_sources, as_gguf, base_of_bundle, base_of_model
from edgekit.importing.ollama.settings import Settings, left_out_stop, read_settings
from edgekit.importing.ollama.template import template_note
from edgekit_exporters.base import Base, GgufBase
from edgekit_exporters.bundle import ANY_ISA, NOT_PROVEN, BundlePlan, Defaults, Quality, write_bundle
from edgekit_exporters.gguf.adapter import write_ready_adapter
from edgekit_exporters.hf.known_templates import KNOWN_TEMPLATES
from edgekit_exporters.hf.templates import template_facts
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.atomic import check_replaceable, write_whole
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import is_bundle, open_bundle, read_manifest
from edgekit_runtime.formats.manifest import BASE, NAME_MEND, Manifest, name_from
from edgekit_runtime.intake.canary import try_adapters

LICENSE_FILE = "LICENSE"  # in a bundle
FOLDER = "dist"
# What an instruction that says nothing to a device is left out for.
_OTHERS = {
    "DRAFT": "answers are not guessed by a second model here",
    "RENDERER": "the base's own chat template counts",
    "PARSER": "the base's own chat template counts",
    "REQUIRES": "that is a version of Ollama",
}


@dataclass
class Imported:
    """What was made.

    Attributes:
        files: the bundle's folder, or adapter files.
        adapters: their names.
        manifest: of the bundle.
        left_out: what Ollama would do and devices don't, each with what to do instead.
        notes: what else there is to know.
    """

    files: list[Path]
    adapters: list[str]
    manifest: Manifest | None = None
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def import_bundle(
    model: OllamaModel,
    output: Path | None = None,
    *,
    name: str | None = None,
    quantize: str | None = None,
    chat_template: str | None = None,
    refit_rank: int | None = None,
) -> Imported:
    """Make a bundle of a model: its base, and each ADAPTER as an adapter of its own.

    Args:
        model: what it is made of.
        output: the bundle's folder; ``dist/NAME`` when None.
        name: of the bundle, and of its adapter where there is one; that of the model when None.
        quantize: another type for the base; its own when None, and for safetensors Q8_0.
        chat_template: a file with a chat template, or the name of a known one, in the place of the base's own.
        refit_rank: as for :func:`~edgekit.exporting.export.export`.

    Raises:
        UsageError: no such type.
        InputError: a file that is no sound base or adapter, adapters of another base or that change nothing, a base
            without a chat template, parameters that are none, or an output that can't be replaced.
    """
    if model.base is None:
        raise InputError(f"{model.source} is not on this machine", f"`ollama pull {model.source}`")
    name, template = _named(name or model.name), _template(chat_template)
    output = output or Path(FOLDER, name)
    replaced = _earlier(output, name)
    settings = read_settings(model.parameters, model.name)
    check_base(str(model.base.absolute()))
    _check_template(template, model.source, model.base)
    made = Imported([output], [], left_out=_left_out(model, settings))
    with tempfile.TemporaryDirectory(prefix="edgekit-import-") as scratch:
        base, file = base_of_model(model, Path(scratch), quantize, template)
        made.notes += _template_notes(model, base)
        ends, others = end_tokens(settings.stops, file)
        if isinstance(base, GgufBase):
            base = base.with_ends(ends.values())
        else:
            others += ends
        made.left_out += map(left_out_stop, others)
        sources = adapter_sources(model, name, settings.generation, refit_rank)
        made.adapters = [each.name for each in sources]
        if isinstance(base, GgufBase):
            sources = [as_gguf(each, base, Path(scratch)) for each in sources]
        plan = BundlePlan(
            name=name,
            version=version_now(),
            task="text" if model.projector is None else "caption",
            base=base,
            base_file=file,
            projector=model.projector,
            merged=[],
            adapters=sources,
            default_adapter=sources[-1].name if sources else None,
            isa=ANY_ISA,
            defaults=Defaults() if sources else Defaults(model.system, settings.generation),
        )
        made.manifest = write_bundle(plan, output, lambda written: _tried(written, model.licenses))
    made.notes += [f"{output} had {replaced.name} {replaced.version}, whose place it takes"] if replaced else []
    if len(sources) > 1:
        made.notes.append(
            f"each ADAPTER is an adapter of its own, {', '.join(made.adapters)}: requests choose one by its name, or "
            f"apply several with lora; {made.adapters[-1]} answers where they name none, as in Ollama"
        )
    return made


def import_adapters(
    model: OllamaModel,
    bundle: Path,
    output: Path | None = None,
    *,
    name: str | None = None,
    refit_rank: int | None = None,
) -> Imported:
    """Make an adapter file of each ADAPTER of a model, for devices that have the base of a bundle.

    Args:
        model: what it is made of; its base is not read.
        bundle: folder or .tar.
        output: folder for the files; ``dist`` when None.
        name: of the adapter, where there is one; that of the model when None.
        refit_rank: as for :func:`~edgekit.exporting.export.export`.

    Raises:
        InputError: as :func:`import_bundle`; a bundle for ONNX Runtime; no ADAPTER.
    """
    if not model.adapters:
        raise InputError(f"{model.name} has no ADAPTER", "make a bundle of it: leave --for out")
    settings = read_settings(model.parameters, model.name)
    made = Imported([], [], left_out=_left_out(model, settings))
    made.left_out += ["LICENSE: keep it beside the file"] if model.licenses else []
    with open_bundle(bundle) as opened, tempfile.TemporaryDirectory(prefix="edgekit-import-") as scratch:
        base = base_of_bundle(opened)
        made.notes += _template_notes(model, base)
        if model.base is not None and model.base.is_file() and gguf_family(model.base) != base.family:
            made.notes.append(f"FROM is another file than the base of {bundle}: see whether both are of one model")
        ends, others = end_tokens(settings.stops, base.gguf)
        made.left_out += map(left_out_stop, [*others, *ends])
        written = []
        for source in adapter_sources(model, _named(name or model.name), settings.generation, refit_rank):
            written.append(Path(scratch, f"{source.name}-{source.version}.gguf"))
            write_ready_adapter(as_gguf(source, base, Path(scratch)), base, written[-1])
            made.adapters.append(source.name)
        _check_alive(opened.base_files, made.adapters, written)
        for each in written:
            made.files.append((output or Path(FOLDER)) / each.name)
            write_whole(made.files[-1], each.read_bytes())
    return made


def _named(name: str) -> str:
    found = name_from(name)
    if not found or found == BASE:
        raise InputError(f"{shown(name)} is no name for a model here", f"give one with --name: {NAME_MEND}")
    return found


def _earlier(output: Path, name: str) -> Manifest | None:
    """The bundle that this one takes the place of, if there is one: an earlier import of the same name.

    Raises:
        InputError: something else is there, or a bundle that can't be made again from here.
    """
    check_replaceable(output, is_bundle)
    if not is_bundle(output):
        return None
    manifest = read_manifest(output)
    if manifest.name != name or manifest.quality != NOT_PROVEN.bundle:
        kind = "another bundle" if manifest.name != name else "a bundle that an export has proven"
        raise InputError(f"{output} holds {kind}, {manifest.name} {manifest.version}", "choose another --output")
    return manifest


def _template(given: str | None) -> Path | str | None:
    """A known template keeps its name, as in a project file."""
    return given if given is None or given in KNOWN_TEMPLATES else Path(given)


def _check_template(template: Path | str | None, source: str, base: Path) -> None:
    found = template_tokens(base)
    if template is None and not found.has_template:
        names = f"one of {', '.join(found.fits)}, or a jinja file" if found.fits else "a jinja file"
        raise InputError(f"{source} has no chat template", f"give one with --chat-template: {names}")
    check_template(template, source, base)


def _left_out(model: OllamaModel, settings: Settings) -> list[str]:
    """What a model says and no device does, but for what depends on its base."""
    found = list(settings.left_out)
    if model.messages:
        found.append(f"MESSAGE, {len(model.messages)} of them: send them at the beginning of each conversation")
    return found + [f"{each.name} {shown(each.value)}: {_OTHERS[each.name]}" for each in model.others]


def _template_notes(model: OllamaModel, base: Base | GgufBase) -> list[str]:
    if model.template is None:
        return []
    own = base.template if isinstance(base, GgufBase) else template_facts(base.folder)
    note = template_note(model.template, own, model.system)
    return [note] if note else []


def _tried(folder: Path, licenses: Sequence[str]) -> Quality:
    """Run what was written once; there is nothing that it could be proven by."""
    with open_bundle(folder, verify=False) as bundle:
        entries = bundle.manifest.adapters
        _check_alive(bundle.base_files, [each.name for each in entries], [folder / each.file for each in entries])
    if licenses:
        (folder / LICENSE_FILE).write_text("\n\n".join(text.strip() for text in licenses) + "\n", encoding="utf-8")
    return NOT_PROVEN


def _check_alive(base: BaseFiles, names: Sequence[str], files: Sequence[Path]) -> None:
    with stage("running the base and each adapter once"):
        alive = try_adapters(base, files)
    dead = [name for name, lives in zip(names, alive, strict=True) if not lives]
    if dead:
        raise InputError(
            f"{' and '.join(dead)} changes nothing of what the base says",
            "see whether FROM is the base it was made on",
        )
