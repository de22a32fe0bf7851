"""manifest.json: what a bundle holds (schema ``edgekit.bundle/1``).

The dataclasses have the JSON fields by name.  Fields that a later version adds are ignored when read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.strict_json import MOST_DEPTH, strict_json, too_deep
from edgekit_runtime.formats.prompt_adapter import PROMPT_KIND
from edgekit_runtime.formats.route import NO_ADAPTER, read_head
from edgekit_runtime.formats.sampling_defaults import check_generation
from edgekit_runtime.hints import did_you_mean

BUNDLE_SCHEMA = "edgekit.bundle/1"
ENGINES = ("llama.cpp", "onnxruntime-genai")
TASKS = ("text", "caption")
GATES = ("passed", "failed", "skipped")
F16 = "f16"  # of a KV cache, where none is named
KV_CACHES = (F16, "q8_0-f16", "q8_0", "q4_0")  # types of keys and values, as llama.cpp names them, or of both
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
AUTO = "auto"  # in the place of an adapter's name: the device chooses
BASE = "base"  # in the place of an adapter's name: the base model alone
LONGEST_NAME = 100
LARGEST_SCALE = 2.0  # of an adapter in a stack
MOST_ADAPTERS = 16  # applied together
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,99}"
VERSION_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
DIGEST_PATTERN = r"[0-9a-f]{64}"
NAME_MEND = "use up to 100 of a-z, 0-9, . _ and -"
MAX_WORD = 256  # signs of what is one line: names, types, dates
MAX_DEPTH, MAX_PATH, MAX_PART = 16, 1000, 255  # of a path: parts, bytes, bytes of a part


@dataclass(frozen=True)
class PartEntry:
    """A file that the engine looks for beside the base's, under ``name``."""

    name: str
    file: str
    digest: str


@dataclass(frozen=True)
class BaseEntry:
    """The base: ``context`` in tokens, ``parameters`` a count, ``digest`` the sha256 of ``file``, which names those of
    ``parts``.

    ``projector`` is the file that reads images for it, in caption bundles, and ``projector_digest`` its sha256.
    ``kv_cache`` is the type of the KV cache that devices keep unless told otherwise, None for F16.
    """

    file: str
    architecture: str
    parameters: int
    quantization: str
    context: int
    family: str
    digest: str
    projector: str | None = None
    projector_digest: str | None = None
    merged: tuple[str, ...] = ()
    system: str | None = None  # that a merged adapter was trained with, or that an imported base comes with
    generation: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None
    template_arguments: dict[str, Any] | None = None
    parts: tuple[PartEntry, ...] = ()
    requantized_from: str | None = None  # the type of the blocks that ``quantization`` was made from, if it was of any
    kv_cache: str | None = None

    def runs_as(self, other: BaseEntry) -> bool:
        """Whether an engine that runs this one runs the other one too: the same file, with the same KV cache."""
        return (self.digest, self.kv_cache or F16) == (other.digest, other.kv_cache or F16)


@dataclass(frozen=True)
class AdapterEntry:
    """One adapter file: ``schema`` is the JSON schema of its answers, ``generation`` its sampling defaults,
    ``template_arguments`` are variables that the chat template gets, ``enable_thinking`` say.  ``kind`` is None for a
    LoRA; a prompt adapter has no rank and no targets, and ``virtual_tokens`` before each prompt.
    """

    name: str
    version: str
    file: str
    rank: int
    targets: tuple[str, ...]
    family: str
    digest: str
    system: str | None = None
    generation: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None
    template_arguments: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    kind: str | None = None
    virtual_tokens: int | None = None
    route: dict[str, Any] | None = None  # its head, see formats.route

    @property
    def scales(self) -> dict[str, float]:
        """What is applied, as of a stack: itself, as it is."""
        return {self.name: 1.0}


@dataclass(frozen=True)
class StackPart:
    """An adapter of a stack: its name, its scale, and the sha256 of the file that the stack was proven with."""

    name: str
    scale: float
    digest: str


@dataclass(frozen=True)
class StackEntry:
    """Adapters that answer together under one name; the other fields are those of an adapter."""

    name: str
    adapters: tuple[StackPart, ...]
    system: str | None = None
    generation: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None
    template_arguments: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None

    @property
    def scales(self) -> dict[str, float]:
        """Of each part, by name."""
        return {part.name: part.scale for part in self.adapters}

    def lacking(self, adapters: Iterable[AdapterEntry]) -> list[str]:
        """The parts that are not among ``adapters`` as the stack was proven with them."""
        there = {(entry.name, entry.digest) for entry in adapters}
        return [part.name for part in self.adapters if (part.name, part.digest) not in there]


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: ``size`` in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Requires:
    """What a device has to have; ``memory_mb`` in MiB."""

    runtime: str
    memory_mb: int
    isa: str


@dataclass(frozen=True)
class Manifest:
    """A whole manifest."""

    schema: str
    name: str
    version: str
    created: str
    engine: str
    task: str
    base: BaseEntry
    adapters: tuple[AdapterEntry, ...]
    default_adapter: str | None
    files: tuple[FileEntry, ...]
    requires: Requires
    quality: dict[str, Any] = field(default_factory=dict)
    stacks: tuple[StackEntry, ...] = ()
    auto: dict[str, Any] | None = None  # the ``fallback`` of requests that leave the choice to the device

    @classmethod
    def parse(cls, text: bytes | str, *, where: str, complete: bool = True) -> Manifest:
        """Read and check a manifest; ``where`` names it in errors.

        ``complete``: each part of a stack has to be there.  In a store, one may have been removed or replaced.

        Raises:
            InputError: not JSON, a field is missing or of the wrong kind, a path leaves the bundle.
        """
        try:
            document = json.loads(text)
            json.dumps(document, ensure_ascii=False).encode()  # half a character is JSON, but no text
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON ({error})", _MEND) from None
        if too_deep(document):
            raise InputError(f"{where} has more than {MOST_DEPTH} objects in each other", _MEND)
        found = document.get("schema") if isinstance(document, dict) else None
        if found != BUNDLE_SCHEMA:
            raise InputError(
                f"{where} has schema {shown(str(found))}, not {BUNDLE_SCHEMA}",
                "update edgekit-runtime, or export again",
            )
        manifest: Manifest = _build(cls, document, where)
        _check(manifest, where)
        _check_stacks(manifest, where, complete)
        _check_auto(manifest, where, complete)
        return manifest

    def dump(self) -> bytes:
        """The manifest as JSON; the same manifest always gives the same bytes."""
        document = asdict(self)
        if not self.stacks:  # older bundles have no such key
            del document["stacks"]
        if self.auto is None:
            del document["auto"]
        for entry in (document["base"], *document["adapters"], *document.get("stacks", ())):
            for key in [key for key, value in entry.items() if value is None]:
                del entry[key]
        return (strict_json(document, indent=2) + "\n").encode()

    def proofs(self) -> dict[str, dict[str, Any]]:
        """The figures of each proven adapter or stack by name; those of merged ones are in the bundle's quality."""
        merged = self.quality.get("merged") or {}
        return {entry.name: entry.quality for entry in self.subjects if entry.quality} | dict(merged)

    @property
    def subjects(self) -> tuple[AdapterEntry | StackEntry, ...]:
        """What requests may name beside the base."""
        return (*self.adapters, *self.stacks)

    def subject(self, name: str) -> AdapterEntry | StackEntry:
        """The adapter or stack called ``name``.

        Raises:
            InputError: there is neither.
        """
        return next((stack for stack in self.stacks if stack.name == name), None) or self.adapter(name)

    def adapter(self, name: str) -> AdapterEntry:
        """The entry called ``name``.

        Raises:
            InputError: there is none.
        """
        for entry in self.adapters:
            if entry.name == name:
                return entry
        names = [entry.name for entry in self.subjects]
        hint = did_you_mean(name, names, "it has") if names else "it has no adapters"
        raise InputError(f"the bundle {self.name} has no adapter {shown(name)}", hint)


_MEND = "export or copy the bundle again"


def read_adapter_entry(document: Any, where: str) -> AdapterEntry:
    """One adapter's entry from JSON.

    Raises:
        InputError: a field is missing or of the wrong kind.
    """
    entry: AdapterEntry = _build(AdapterEntry, document, where)
    _check_adapter(entry, where)
    return entry


def _build(kind: type[Any], document: Any, where: str) -> Any:
    """Fill a dataclass from JSON, checking each value against the annotation of its field."""
    if not isinstance(document, dict):
        raise InputError(f"{where} has to be an object", _MEND)
    values: dict[str, Any] = {}
    for each in fields(kind):
        place = f"{where}: {each.name}"
        if each.name in document:
            values[each.name] = _KINDS[str(each.type)](document[each.name], place)
        elif "None" not in str(each.type) and each.name not in _OPTIONAL:
            raise InputError(f"{place} is missing", _MEND)
        elif each.name not in _OPTIONAL:
            values[each.name] = None
    return kind(**values)


_OPTIONAL = ("merged", "parts", "quality", "stacks")


def _plain(kind: type, optional: bool = False) -> Callable[[Any, str], Any]:
    def check(value: Any, place: str) -> Any:
        if optional and value is None:
            return None
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise InputError(f"{place} has to be {_WORDS[kind]}", _MEND)
        return value

    return check


def _number(value: Any, place: str) -> float:
    if type(value) not in (int, float):
        raise InputError(f"{place} has to be a number", _MEND)
    try:
        return float(value)
    except OverflowError:  # more digits than a float has room for
        return math.inf if value > 0 else -math.inf


def _many(one: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    def check(value: Any, place: str) -> Any:
        if not isinstance(value, list):
            raise InputError(f"{place} has to be a list", _MEND)
        return tuple(one(item, f"{place}[{index}]") for index, item in enumerate(value))

    return check


def _record(kind: type[Any]) -> Callable[[Any, str], Any]:
    return lambda value, place: _build(kind, value, place)


_WORDS = {str: "text", int: "a whole number", dict: "an object"}
_KINDS: dict[str, Callable[[Any, str], Any]] = {
    "str": _plain(str),
    "int": _plain(int),
    "float": _number,
    "str | None": _plain(str, optional=True),
    "int | None": _plain(int, optional=True),
    "dict[str, Any]": _plain(dict),
    "dict[str, Any] | None": _plain(dict, optional=True),
    "tuple[str, ...]": _many(_plain(str)),
    "tuple[AdapterEntry, ...]": _many(_record(AdapterEntry)),
    "tuple[StackEntry, ...]": _many(_record(StackEntry)),
    "tuple[StackPart, ...]": _many(_record(StackPart)),
    "tuple[FileEntry, ...]": _many(_record(FileEntry)),
    "tuple[PartEntry, ...]": _many(_record(PartEntry)),
    "BaseEntry": _record(BaseEntry),
    "Requires": _record(Requires),
}


def _check(manifest: Manifest, where: str) -> None:
    """What types alone don't say: safe paths, known words, references that hold."""
    files = {entry.path: entry for entry in manifest.files}
    names = [entry.name for entry in manifest.adapters]
    gate = manifest.quality.get("gate", "skipped")
    cache = manifest.base.kv_cache or F16
    for good, problem in (
        (manifest.engine in ENGINES, f"engine {shown(manifest.engine)} is none of {', '.join(ENGINES)}"),
        (manifest.task in TASKS, f"task {shown(manifest.task)} is none of {', '.join(TASKS)}"),
        (gate in GATES, f"quality.gate {shown(str(gate))} is none of {', '.join(GATES)}"),
        (cache in KV_CACHES, f"base.kv_cache {shown(cache)} is none of {', '.join(KV_CACHES)}"),
        (cache == F16 or manifest.engine == ENGINES[0], f"{manifest.engine} has no KV cache of {cache}"),
        (len(files) == len(manifest.files), "a file is listed twice"),
        (len(set(names)) == len(names), "an adapter is listed twice"),
        (all(map(is_safe_path, files)), "a path leaves the bundle, or is no name that a file can have everywhere"),
        (not {MANIFEST_FILE, SIGNATURE_FILE} & files.keys(), "it lists itself"),
        (not any(_folders(path) & files.keys() for path in files), "a file lies in another file"),
        (
            all(re.fullmatch(DIGEST_PATTERN, entry.sha256) for entry in manifest.files),
            "a sha256 is malformed",
        ),
        (
            (manifest.task == "caption") == (manifest.base.projector is not None),
            "a projector is there for captions, and for them alone",
        ),
        (
            manifest.default_adapter in (None, *names, *(stack.name for stack in manifest.stacks)),
            f"default_adapter {shown(str(manifest.default_adapter))} is not in it",
        ),
    ):
        if not good:
            raise InputError(f"{where}: {problem}", _MEND)
    check_version(manifest.version, where)
    for name, line in _lines(manifest):
        if not is_word(line):
            raise InputError(f"{where}: {name} is {shown(line)}, which is no single line of text", _MEND)
    check_generation(manifest.base.generation, f"{where}: base")
    for entry in manifest.adapters:
        _check_adapter(entry, where)
    for part in manifest.base.parts:
        if "/" in part.name or not is_safe_path(part.name):
            raise InputError(f"{where}: {shown(part.name)} is no name for a part of the base", _MEND)
    for file, digest in needed_files(manifest.base, manifest.adapters).items():
        if file not in files:
            raise InputError(f"{where}: {file} is not among its files", _MEND)
        if files[file].sha256 != digest:
            raise InputError(f"{where}: the digest of {file} contradicts its sha256", _MEND)


def _check_adapter(entry: AdapterEntry, where: str) -> None:
    if not re.fullmatch(NAME_PATTERN, entry.name):
        raise InputError(f"{where}: {shown(entry.name)} is no name for an adapter", NAME_MEND)
    check_version(entry.version, where)
    if not all(map(is_word, (entry.family, *entry.targets))):
        raise InputError(f"{where}: adapter {entry.name}: family and targets have to be lines of text", _MEND)
    check_generation(entry.generation, f"{where}: adapter {entry.name}")
    if entry.kind not in (None, PROMPT_KIND):
        raise InputError(
            f"{where}: adapter {entry.name} is of the kind {shown(entry.kind)}, which this version doesn't know",
            "update edgekit-runtime",
        )
    if (entry.kind == PROMPT_KIND) != bool(entry.virtual_tokens):
        raise InputError(f"{where}: adapter {entry.name}: a prompt adapter, and no other, has virtual tokens", _MEND)
    if entry.route is not None:
        read_head(entry.route, f"{where}: adapter {entry.name}: route")


def _check_auto(manifest: Manifest, where: str, complete: bool) -> None:
    """Who answers what is for none of the adapters; one that is named has to be there where all is ``complete``."""
    if manifest.auto is None:
        return
    fallback = manifest.auto.get("fallback")
    if not isinstance(fallback, str) or not (fallback in NO_ADAPTER or re.fullmatch(NAME_PATTERN, fallback)):
        raise InputError(f"{where}: auto.fallback is {shown(str(fallback))}, which is no adapter's name", _MEND)
    names = {*NO_ADAPTER, *(entry.name for entry in manifest.adapters)}
    if complete and fallback not in names:
        raise InputError(f"{where}: auto.fallback {shown(fallback)} is not in it", _MEND)


def _check_stacks(manifest: Manifest, where: str, complete: bool) -> None:
    """What stacks say of adapters; their parts themselves where they have to be ``complete``."""
    adapters = {entry.name: entry for entry in manifest.adapters}
    taken = {BASE, *adapters}
    for stack in manifest.stacks:
        if not re.fullmatch(NAME_PATTERN, stack.name):
            raise InputError(f"{where}: {shown(stack.name)} is no name for a stack", NAME_MEND)
        if stack.name in taken:
            raise InputError(f"{where}: the name of the stack {stack.name} is taken", _MEND)
        taken.add(stack.name)
        problem = _stack_problem(stack, adapters, complete)
        if problem is not None:
            raise InputError(f"{where}: stack {stack.name}: {problem}", _MEND)
        check_generation(stack.generation, f"{where}: stack {stack.name}")


def _stack_problem(stack: StackEntry, adapters: dict[str, AdapterEntry], complete: bool) -> str | None:
    """What is wrong with the parts of a stack."""
    names = list(stack.scales)
    if len(names) < len(stack.adapters):
        return "an adapter is named twice"
    if not 0 < len(names) <= MOST_ADAPTERS:
        return f"it has {len(names)} adapters, and 1 to {MOST_ADAPTERS} are possible"
    for part in stack.adapters:
        if not 0 < part.scale <= LARGEST_SCALE:
            return f"the scale of {shown(part.name)} has to be over 0 and at most {LARGEST_SCALE:g}"
        known = adapters.get(part.name)
        if known is not None and known.kind is not None and (complete or known.digest == part.digest):
            return f"{part.name} is a prompt adapter, which answers alone"
    lacking = stack.lacking(adapters.values()) if complete else []
    return f"the bundle has no adapter {shown(lacking[0])} as the stack needs it" if lacking else None


def name_from(text: str) -> str:
    """A name for an adapter, made of a text; empty where nothing of it can be in one."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:LONGEST_NAME].rstrip("._-")


def check_version(version: str, where: str) -> None:
    """Check that a version is one: it gets into file names, logs and comparisons.

    Raises:
        InputError: it isn't.
    """
    if not re.fullmatch(VERSION_PATTERN, version):
        raise InputError(f"{where}: {shown(version)} is no version", "use up to 64 letters, digits, . _ + and -")


def is_word(text: str) -> bool:
    """Whether a text is one short line that can be printed: a newline in it would write a line into a log."""
    return len(text) <= MAX_WORD and text.isprintable()


def _lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What is one line in a manifest, but for adapters."""
    for name in ("name", "created"):
        yield name, getattr(manifest, name)
    for name in ("architecture", "quantization", "family"):
        yield f"base.{name}", getattr(manifest.base, name)
    yield "base.requantized_from", manifest.base.requantized_from or ""
    for merged in manifest.base.merged:
        yield "base.merged", merged
    for name in ("runtime", "isa"):
        yield f"requires.{name}", getattr(manifest.requires, name)


def _folders(path: str) -> set[str]:
    return {folder.as_posix() for folder in PurePosixPath(path).parents}


def needed_files(base: BaseEntry, adapters: Iterable[AdapterEntry]) -> dict[str, str]:
    """What a base and adapters are made of: each file with its sha256."""
    entries: list[BaseEntry | PartEntry | AdapterEntry] = [base, *base.parts, *adapters]
    files = {entry.file: entry.digest for entry in entries}
    if base.projector is not None:
        files[base.projector] = str(base.projector_digest)
    return files


def is_safe_path(path: str) -> bool:
    """Whether a path of a bundle is relative, stays inside, can be made, and means the same on every system."""
    if len(path) > MAX_PATH or not path.isprintable():
        return False
    parts = PurePosixPath(path).parts
    return (
        0 < len(parts) <= MAX_DEPTH
        and len(path.encode()) <= MAX_PATH
        and all(len(part.encode()) <= MAX_PART for part in parts)
        and not path.startswith("/")
        and not any(part in ("..", ".") for part in path.split("/"))
        and not any(sign in path for sign in "\\:\0")
        and "/".join(parts) == path
    )
