"""Where a proven bundle comes from: what its report says of project, base, device, data and versions."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.bases.resolve import base_label
from edgekit.data import data_digest
from edgekit.project import Adapter, Project
from edgekit.project.folders import trained_folder
from edgekit.project.run_record import read_record
from edgekit.training.finished import folded_digest
from edgekit_exporters.base import Base
from edgekit_exporters.peft.files import find_adapter
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.manifest import Manifest

PACKAGES = ("edgekit", "edgekit-runtime", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Origin:
    """Facts for a report.

    Attributes:
        project: its name.
        base: what files call the project's base; see :func:`~edgekit.bases.resolve.base_label`.
        device: the device profile that the bundle is for; None when none was named.
        data: adapter or stack -> sha256 over its evaluation file and the images in it.
        trained: adapter -> sha256 over the trained weights.
        combined: adapter that is made of others -> what its run.json says of that.
        folded: of adapters that were trained merged -> sha256 over the tensors with them in their blocks, which are
            those of the bundle.
    """

    project: str
    base: str
    device: str | None
    data: Mapping[str, str]
    trained: Mapping[str, str]
    combined: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folded: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        project: Project,
        adapters: Sequence[Adapter],
        base: Base,
        device: str | None,
        stacks: Sequence[str] = (),
    ) -> Origin:
        """Read what isn't known yet.

        Raises:
            InputError: evaluation rows that can't be read.
        """
        data = {each: data_digest(project.eval_files(each)) for each in (*(each.name for each in adapters), *stacks)}
        trained = {each.name: _weights_digest(trained_folder(project, each)) for each in adapters}
        folded = {each.name: digest for each in adapters if (digest := folded_digest(project, each)) is not None}
        records = {each.name: read_record(trained_folder(project, each)) for each in adapters if each.combined}
        return cls(
            project.project,
            base_label(project, base),
            None if device is None else Path(device).name,
            data,
            trained,
            {name: record["combined"] for name, record in records.items() if record is not None},
            folded,
        )

    def document(self, manifest: Manifest, engine: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of report.json, for the bundle with this manifest, which ``engine`` has answered for."""
        base = manifest.base
        more: dict[str, Any] = {"combined": dict(self.combined)} if self.combined else {}
        if manifest.stacks:
            more["stacks"] = {stack.name: stack.scales for stack in manifest.stacks}
        return more | {
            "project": self.project,
            "bundle": {"name": manifest.name, "version": manifest.version},
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "base": {
                "name": self.base,
                "family": base.family,
                "quantization": base.quantization,
                "kv_cache": base.kv_cache,
                "requantized_from": base.requantized_from,
                "digest": base.digest,
                "merged": list(base.merged),
            },
            "device": {"profile": self.device, "isa": manifest.requires.isa},
            "versions": {
                "engine": f"{engine['name']} ({engine['version']})",
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
            "digests": {
                "base": base.digest,
                "adapters": {entry.name: entry.digest for entry in manifest.adapters},
                "trained": dict(self.trained),
                "folded": dict(self.folded),
                "eval": dict(self.data),
            },
        }


def _weights_digest(trained: Path) -> str:
    """sha256 over the files that hold the adapter's tensors; of one file its own."""
    files = find_adapter(trained).tensor_files()
    if len(files) == 1:
        return file_digest(files[0])
    return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()
