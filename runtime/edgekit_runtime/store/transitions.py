"""What becomes of a generation when something is installed, activated or removed; nothing here touches files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import AdapterEntry, FileEntry, Manifest, needed_files
from edgekit_runtime.hints import nearest
from edgekit_runtime.store.generations import Generation

Sizes = Mapping[str, int]


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Order of versions: numbers as numbers, ``1.10`` after ``1.9``, ``1.0`` after ``1.0-rc1``."""
    parts = re.findall(r"[0-9]+|[A-Za-z]+", version)
    return (*((1, int(part)) if part.isdecimal() else (0, part) for part in parts), (1, -1))


def with_bundle(old: Generation | None, manifest: Manifest, sizes: Sizes, *, allow_downgrade: bool) -> Generation:
    """The bundle's base and adapters; of the earlier adapters those of the same family stay.

    Args:
        old: the current generation.
        manifest: the bundle's, with files by their place in the store.
        sizes: bytes by place in the store.
        allow_downgrade: take an older bundle too.

    Raises:
        InputError: the bundle, or an adapter in it, is older than the one that is active.
    """
    kept: tuple[AdapterEntry, ...] = ()
    if old is not None:
        check_newer(manifest.name, manifest.version, old.manifest.version, allow_downgrade)
        kept = tuple(entry for entry in old.installed if entry.family == manifest.base.family)
        for entry in manifest.adapters:
            _check_no_older(entry, [each for each in old.manifest.adapters if each in kept], allow_downgrade)
    names = {entry.name for entry in manifest.subjects}
    active = old.manifest.adapters if old else ()
    still = tuple(entry for entry in active if entry in kept and entry.name not in names)
    digests = {entry.digest for entry in manifest.adapters}
    installed = (*(entry for entry in kept if entry.digest not in digests), *manifest.adapters)
    return Generation(0, None, "", _with_adapters(manifest, (*still, *manifest.adapters), sizes), installed)


def with_adapter(old: Generation, entry: AdapterEntry, sizes: Sizes, *, allow_downgrade: bool) -> Generation:
    """One more adapter, active in the place of the earlier one of its name.

    Raises:
        InputError: it is older than the one that is active.
    """
    _check_no_older(entry, old.manifest.adapters, allow_downgrade)
    replaced = {each.digest for each in old.installed if (each.name, each.version) == (entry.name, entry.version)}
    installed = (*(each for each in old.installed if each.digest not in replaced | {entry.digest}), entry)
    return with_active(replace(old, installed=installed), entry, sizes)


def with_active(old: Generation, entry: AdapterEntry, sizes: Sizes) -> Generation:
    """An installed adapter version, active.

    Raises:
        InputError: a stack of the bundle has its name.
    """
    if any(stack.name == entry.name for stack in old.manifest.stacks):
        raise InputError(f"{entry.name} is a stack of {old.manifest.name}", "give the adapter another name")
    others = tuple(each for each in old.manifest.adapters if each.name != entry.name)
    return replace(old, manifest=_with_adapters(old.manifest, (*others, entry), sizes))


def without(old: Generation, name: str, version: str | None, sizes: Sizes) -> Generation:
    """All versions of an adapter out, or one.

    Raises:
        InputError: it is not installed.
    """
    gone = {entry.digest for entry in old.installed if entry.name == name and version in (None, entry.version)}
    if not gone:
        raise _not_installed(old, name, version)
    installed = tuple(entry for entry in old.installed if entry.digest not in gone)
    active = tuple(entry for entry in old.manifest.adapters if entry.digest not in gone)
    return replace(old, manifest=_with_adapters(old.manifest, active, sizes), installed=installed)


def find_installed(generation: Generation, name: str, version: str | None) -> AdapterEntry:
    """A version of an adapter, the newest when ``version`` is None.

    Raises:
        InputError: it is not installed.
    """
    found = [entry for entry in generation.installed if entry.name == name and version in (None, entry.version)]
    if not found:
        raise _not_installed(generation, name, version)
    return max(found, key=lambda entry: version_key(entry.version))


def _with_adapters(manifest: Manifest, adapters: Sequence[AdapterEntry], sizes: Sizes) -> Manifest:
    """The manifest with other active adapters, its list of files and its default made to fit."""
    needed = needed_files(manifest.base, adapters)
    files = tuple(FileEntry(file, sizes[file], digest) for file, digest in needed.items())
    names = [*(entry.name for entry in adapters), *(stack.name for stack in manifest.stacks)]
    default = manifest.default_adapter if manifest.default_adapter in names else None
    return replace(manifest, adapters=tuple(adapters), files=files, default_adapter=default)


def _check_no_older(entry: AdapterEntry, actives: Sequence[AdapterEntry], allow_downgrade: bool) -> None:
    for active in actives:
        if active.name == entry.name:
            check_newer(entry.name, entry.version, active.version, allow_downgrade)


def check_newer(
    name: str, version: str, active: str, allow_downgrade: bool, hint: str = "roll back, or --allow-downgrade"
) -> None:
    """Refuse a version older than the one that is active, unless that is wanted; ``mend`` says how it is asked for.

    Raises:
        InputError: it is older.
    """
    if not allow_downgrade and version_key(version) < version_key(active):
        raise InputError(f"{name} {version} is older than {active}, which is active", hint)


def _not_installed(generation: Generation, name: str, version: str | None) -> InputError:
    there = ", ".join(f"{entry.name} {entry.version}" for entry in generation.installed) or "none"
    wanted = name if version is None else f"{name} {version}"
    near = nearest(name, {entry.name for entry in generation.installed} - {name})
    hint = f"installed: {there}" + (f"; did you mean {near}?" if near else "")
    return InputError(f"adapter {wanted} is not installed", hint)
