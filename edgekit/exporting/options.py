"""What one export is asked for beyond the project file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.project import FORMATS, MODES, Project
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.kv_cache import check_kv_cache
from edgekit_runtime.hints import did_you_mean


@dataclass(frozen=True)
class ExportOptions:
    """Arguments of :func:`~edgekit.exporting.export.export`, which says what they mean; None leaves the project's."""

    output: Path | None = None
    format: str | None = None
    mode: str | None = None
    quantize: str | None = None
    kv_cache: str | None = None
    device: str | None = None
    imatrix: bool = False
    tensor_types: Mapping[str, str] = field(default_factory=dict)
    refit_rank: int | None = None
    accept_loss: str | None = None
    max_mb: float | None = None
    min_decode_tps: float | None = None

    def applied_to(self, project: Project) -> Project:
        """``project`` with these in the place of its export settings, but for ``quantize``.

        Raises:
            UsageError: no such format, mode or KV cache.
        """
        settings = project.export
        kind, mode = self.format or settings.format, self.mode or settings.mode
        if kind not in FORMATS:
            raise UsageError(f"there is no format {kind}", did_you_mean(kind, FORMATS))
        if mode not in MODES:
            raise UsageError(f"there is no mode {mode}", did_you_mean(mode, MODES))
        if self.kv_cache is not None:
            check_kv_cache(self.kv_cache)
        settings = replace(
            settings,
            format=kind,
            mode=mode,
            kv_cache=self.kv_cache or settings.kv_cache,
            device=self.device or settings.device,
            imatrix=self.imatrix or settings.imatrix,
            tensor_types={**settings.tensor_types, **self.tensor_types},
        )
        return replace(project, export=settings)
