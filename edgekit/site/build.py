"""Writing a site folder: the bundle, the app, the JS module, and what a service worker has to know of them.

A site (schema ``edgekit.site/1``) is plain files for any static host::

    index.html, sw.js, site.webmanifest, ui/, icons/              the app
    app.css, colours.css                                          its looks; the colours are those of the status page
    edgekit-runtime/                                              the JS module
    vendor/                                                       pinned code of others, with its licences
    site.json                                                     versions, keys, digests, template probes, examples
    bundle/                                                       the bundle, file for file
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgekit.site.assets import PACKAGES, vendored_files
from edgekit.site.colours import COLOURS_FILE, colour, colours_sheet
from edgekit.site.examples import example_prompts
from edgekit.site.policy import BUNDLE_POLICY, content_security_policy, response_headers
from edgekit.site.probes import template_facts
from edgekit.targets.devices import BROWSER_ENGINE, device_profile
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.atomic import check_replaceable, publish
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.bundle import Bundle, open_bundle
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.kv_cache import with_kv_cache
from edgekit_runtime.formats.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from edgekit_runtime.formats.model_facts import gguf_facts
from edgekit_runtime.formats.sampling_defaults import penalties_in
from edgekit_runtime.intake.adapters import take_in_bundle

SITE_SCHEMA = "edgekit.site/1"
SITE_FILE = "site.json"
SERVICE_WORKER = "sw.js"
BUNDLE_FOLDER = "bundle"
LARGEST_BASE = 7 * 2**29  # bytes: the engine's memory ends at 4 GiB, and KV cache, adapters and sums need some of it
# What only some browsers need, or a large part of the download: fetched when asked for, then kept.
ON_DEMAND = ("vendor/wllama/wllama.wasm", "vendor/wllama/compat.js", "vendor/wllama/compat.wasm")


def build_site(
    bundle: Path, output: Path, *, trust: Path | None = None, adapters_from: Sequence[str] = ()
) -> dict[str, Any]:
    """Write a site that runs ``bundle`` in a browser page; an earlier site at ``output`` is replaced in one step.

    Args:
        bundle: folder or tar of a llama.cpp bundle.
        output: the site's folder.
        trust: public keys (PEM); the page then takes only bundles and adapters that one of them has signed.
        adapters_from: other origins (``https://host``) that adapters may be installed from.

    Returns:
        The document ``site.json``.

    Raises:
        InputError: a bundle that doesn't verify or that browsers can't run; an output that holds something else.
        UsageError: an origin that is none.
        TargetError: npm can't fetch the engine.
    """
    check_replaceable(output, is_site)
    origins = [_origin(each) for each in adapters_from]
    with open_bundle(bundle, trust=trust) as opened:
        manifest = opened.manifest
        _check_fit_for_browsers(opened)
        with publish(output, is_ours=is_site) as folder:
            _copy_app(folder, content_security_policy(origins))
            for name, content in vendored_files():
                _write(folder / "vendor" / name, content)
            (folder / "site.webmanifest").write_text(json.dumps(_web_manifest(manifest), indent=1), encoding="utf-8")
            document: dict[str, Any] = {
                "schema": SITE_SCHEMA,
                "version": "",
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "bundle": {"name": manifest.name, "version": manifest.version},
                "trust": None if trust is None else trust.read_text(encoding="ascii"),
                "adapters_from": origins,
                "template": template_facts(opened.base_path, with_images=opened.projector_path is not None),
                "examples": example_prompts(opened),
                "vendor": [
                    {"package": each.name, "version": each.version, "license": each.license} for each in PACKAGES
                ],
                "files": _listing(folder),
            }
            document["version"] = _version(document)
            text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
            (folder / SITE_FILE).write_text(text, encoding="utf-8")
            _finish_service_worker(folder, document, origins)
            (folder / "_headers").write_text(_headers_file(origins), encoding="ascii")
            _link_bundle(opened.root, manifest, folder / BUNDLE_FOLDER)
    return document


def site_folder(bundle: Path) -> Path:
    """Where the site of a bundle goes unless told otherwise: beside it."""
    return bundle.with_name(f"{bundle.name.removesuffix('.tar')}-site")


def site_for_device(bundle: Path, device: str | None) -> Path | None:
    """Write the site of a fresh bundle beside it when ``device`` is a browser; None for any other device."""
    if device is None or device_profile(device).engine != BROWSER_ENGINE:
        return None
    output = site_folder(bundle)
    build_site(bundle, output)
    return output


def is_site(folder: Path) -> bool:
    """Whether ``folder`` is a site that a build may replace."""
    try:
        return SITE_SCHEMA.encode() in (folder / SITE_FILE).read_bytes()
    except OSError:
        return False


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(f"{text!r} is no origin", "give scheme and host, https://adapters.example.com say")
    return f"{parts.scheme}://{parts.netloc}"


def _check_fit_for_browsers(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if manifest.engine != "llama.cpp":
        raise InputError(f"browsers run llama.cpp bundles, and this is one for {manifest.engine}", "export as gguf")
    size = bundle.base_path.stat().st_size
    if size > LARGEST_BASE:
        raise InputError(
            f"the base has {size / 1e9:.1f} GB, and a page's engine, of 4 GiB, takes {LARGEST_BASE / 1e9:.1f}",
            "choose a smaller quantization (--quantize Q4_0) or a smaller base",
        )
    header = read_gguf(bundle.base_files.header)
    with_kv_cache(gguf_facts(header), bundle.base_files.kv_cache, manifest.base.family)
    take_in_bundle(bundle, header)
    for entry in manifest.adapters:
        facts = AdapterFacts.read(bundle.adapter_path(entry.name))
        if facts.rows is not None:
            raise InputError(
                f"{entry.name} is a prompt adapter, and a page's engine takes no embeddings", "train it as a LoRA"
            )
        if facts.invocation:
            raise InputError(
                f"{entry.name} is an activated LoRA, which a page's engine can't switch on", "train it as a plain LoRA"
            )
    sampled = [("the base", manifest.base.generation), *((each.name, each.generation) for each in manifest.adapters)]
    for name, generation in sampled:
        if penalties := penalties_in(generation):
            raise InputError(
                f"{name} is sampled with {', '.join(penalties)}, which a page's engine counts in another way",
                "export it without",
            )


def _copy_app(folder: Path, policy: str) -> None:
    filled = {"__CSP__": policy, "__LIGHT__": colour("card", dark=False), "__DARK__": colour("card", dark=True)}
    for path, source in _walk(files("edgekit_web") / "app"):
        content = source.read_bytes()
        if path.endswith(".html"):
            for mark, value in filled.items():
                content = content.replace(mark.encode(), value.encode())
        _write(folder / path, content)
    _write(folder / COLOURS_FILE, colours_sheet().encode())


def _walk(folder: Traversable, prefix: str = "") -> Iterable[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _web_manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "short_name": manifest.name,
        "description": f"{manifest.name}: a language model that answers on this device",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": colour("back", dark=True),
        "theme_color": colour("card", dark=True),
        "icons": [
            {"src": "icons/icon-192.png", "sizes": "192x192", "type": "image/png"},
            {"src": "icons/icon-512.png", "sizes": "512x512", "type": "image/png"},
            {"src": "icons/icon-maskable.png", "sizes": "512x512", "type": "image/png", "purpose": "maskable"},
        ],
    }


def _listing(folder: Path) -> list[dict[str, Any]]:
    """Every file but those that depend on this list; ``lazy`` ones are fetched when they are needed."""
    result = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == SERVICE_WORKER:
            continue
        content = path.read_bytes()
        result.append(
            {
                "path": name,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "lazy": name in ON_DEMAND or name.endswith((".d.ts", "LICENSE")),
            }
        )
    return result


def _version(document: dict[str, Any]) -> str:
    """The same files and settings give the same version, so that nothing is fetched again for nothing."""
    facts = {key: value for key, value in document.items() if key not in ("version", "created")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _finish_service_worker(folder: Path, document: dict[str, Any], origins: Sequence[str]) -> None:
    """Put what it has to know before its code: a new app is then a new worker, which browsers notice."""
    known: dict[str, Any] = {
        "files": document["files"],
        "headers": response_headers(origins),
        "bundle": BUNDLE_POLICY,
    }
    known = {"version": _version(known)} | known
    path = folder / SERVICE_WORKER
    code = path.read_text(encoding="utf-8")
    path.write_text(f"const SITE = {json.dumps(known)};\n{code}", encoding="utf-8")


def _headers_file(origins: Sequence[str]) -> str:
    """The form that several static hosts read headers from."""
    headers = "".join(f"  {name}: {value}\n" for name, value in response_headers(origins).items())
    return f"/*\n{headers}/{BUNDLE_FOLDER}/*\n  Content-Security-Policy: {BUNDLE_POLICY}\n"


def _link_bundle(root: Path, manifest: Manifest, target: Path) -> None:
    """The bundle's files, as hard links where the disk allows it: a base is large."""
    names = [entry.path for entry in manifest.files] + [MANIFEST_FILE]
    if (root / SIGNATURE_FILE).exists():
        names.append(SIGNATURE_FILE)
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(root / name, path)
        except OSError:
            shutil.copyfile(root / name, path)
