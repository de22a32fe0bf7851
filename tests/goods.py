"""A small real bundle, and adapter files that fit it or don't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import BundlePlan, write_bundle
from edgekit_exporters.conversion.tensor_map import tensor_map
from edgekit_exporters.gguf.adapter import AdapterSource, write_adapter_gguf
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.lora import lora_pairs, write_lora
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.peft.canonical import canonicalize
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import MANIFEST_FILE
from edgekit_runtime.prompts.template import TemplateFacts
from tests.adapters import save_random_lora


@dataclass(frozen=True)
class Goods:
    """What the tests install: adapter ``one`` 1.0.0 is in the bundle."""

    bundle: Path
    later_bundle: Path
    one_newer: Path
    two: Path
    nameless: Path
    other_family: Path

    def other_base(self, folder: Path) -> Path:
        """A later bundle in ``folder`` whose base is another file of the same family."""
        bundle = Path(shutil.copytree(self.later_bundle, folder / "other"))
        _rewrite_base(bundle, {"general.description": "another file"})
        return bundle


def with_base(bundle: Path, folder: Path, version: str = "1", **changed: Any) -> Path:
    """A copy of a bundle whose manifest says other things of its base, and nothing of a proof."""
    shutil.copytree(bundle, folder, copy_function=shutil.copy2)
    document = json.loads((folder / MANIFEST_FILE).read_text())
    document["base"] |= changed
    document["version"] = version
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    return folder


def text_plan(
    base: Base,
    base_file: Path,
    adapters: Sequence[AdapterSource],
    *,
    version: str = "1",
    default_adapter: str | None = None,
) -> BundlePlan:
    """A text bundle ``line-3`` with separate adapters, for any CPU."""
    return BundlePlan(
        name="line-3",
        version=version,
        task="text",
        base=base,
        base_file=base_file,
        merged=[],
        adapters=adapters,
        default_adapter=default_adapter,
        isa="any",
    )


def make_onnx_bundle(base_folder: Path, folder: Path) -> Path:
    """Write a bundle for ONNX Runtime to ``folder``, over the model in ``base_folder``."""
    from edgekit_exporters.onnx.base import base_onnx

    base = resolve_base(str(base_folder))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    save_random_lora(model, folder / "one", std=0.3, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    adapters = [AdapterSource("one", "1.0.0", folder / "one")]
    write_bundle(text_plan(base, base_onnx(base, "int8"), adapters, default_adapter="one"), folder / "bundle")
    return folder / "bundle"


def make_goods(base_folder: Path, folder: Path) -> Goods:
    """Write them to ``folder``, over the model in ``base_folder``."""
    base = resolve_base(str(base_folder))

    def peft(seed: int) -> Path:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
        options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
        save_random_lora(model, folder / f"peft-{seed}", std=0.3, **options)
        return folder / f"peft-{seed}"

    def adapter(seed: int, file: str, **facts: Any) -> Path:
        source = AdapterSource(**({"name": "one", "version": "1.0.0"} | facts), folder=peft(seed))
        write_adapter_gguf(source, base, folder / file)
        return folder / file

    adapters = [AdapterSource("one", "1.0.0", peft(1), system="You are terse.")]
    plan = text_plan(base, base_gguf(base, "F16"), adapters, version="2026.01.01", default_adapter="one")
    write_bundle(plan, folder / "bundle")
    write_bundle(replace(plan, version="2026.02.01"), folder / "later")
    two = adapter(3, "two.gguf", name="two")
    nameless = folder / "from-elsewhere.gguf"
    write_lora(lora_pairs(canonicalize(folder / "peft-3", base).layers, tensor_map(base.folder)), nameless, "F16")
    rewrite_metadata(two, folder / "other.gguf", {"edgekit.family": "another-base-0123456789ab"})
    return Goods(
        bundle=folder / "bundle",
        later_bundle=folder / "later",
        one_newer=adapter(2, "one-1.10.gguf", version="1.10"),
        two=two,
        nameless=nameless,
        other_family=folder / "other.gguf",
    )


def with_template(bundle: Path, folder: Path, template: str) -> Path:
    """``bundle`` in ``folder``, with another chat template."""
    made = Path(shutil.copytree(bundle, folder / "with-template"))
    base = made / json.loads((made / "manifest.json").read_text())["base"]["file"]
    _rewrite_base(made, TemplateFacts.of(template, TemplateFacts.read(read_gguf(base)).tokens).metadata())
    return made


def _rewrite_base(bundle: Path, metadata: dict[str, Any]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    path = bundle / manifest["base"]["file"]
    rewritten = path.with_suffix(".new")
    rewrite_metadata(path, rewritten, metadata)
    rewritten.replace(path)
    manifest["base"]["digest"] = file_digest(path)
    for file in manifest["files"]:
        if file["path"] == manifest["base"]["file"]:
            file["size"], file["sha256"] = path.stat().st_size, file_digest(path)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def with_report(bundle: Path, folder: Path, prompts: dict[str, list[object]]) -> Path:
    """``bundle`` in ``folder``, with a report whose rows have these prompts."""
    rows = [{"adapter": name, "rows": [{"prompt": each} for each in asked]} for name, asked in prompts.items()]
    return with_file(bundle, folder, "report/report.json", json.dumps({"adapters": rows}).encode())


def with_file(bundle: Path, folder: Path, path: str, content: bytes) -> Path:
    """``bundle`` in ``folder``, with one more file."""
    made = folder / "with-file"
    shutil.copytree(bundle, made)
    (made / path).parent.mkdir(exist_ok=True)
    (made / path).write_bytes(content)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["files"].append({"path": path, "size": len(content), "sha256": file_digest(made / path)})
    (made / "manifest.json").write_text(json.dumps(manifest))
    return made


def with_two_adapters(goods: Goods, folder: Path, default: str | None) -> Path:
    """The bundle of ``goods`` in ``folder``, with adapter ``two`` beside ``one``."""
    path = "adapters/two-1.0.0.gguf"
    made = with_file(goods.bundle, folder, path, goods.two.read_bytes())
    manifest = json.loads((made / "manifest.json").read_text())
    (one,) = manifest["adapters"]
    facts = {"name": "two", "file": path, "digest": file_digest(made / path), "system": None}
    manifest |= {"adapters": [one, one | facts], "default_adapter": default}
    (made / "manifest.json").write_text(json.dumps(manifest))
    return made
