"""`edgekit export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli import completion
from edgekit.cli.frame import Json, command
from edgekit.cli.options import OtherBase, ProjectFolder, Python, RefitRank, load, one_of, read
from edgekit_runtime.cli.arguments import number
from edgekit_runtime.cli.parser import print_json, size_text
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit_runtime.formats.manifest import Manifest


@command("edgekit export --format gguf --quantize Q4_0")
def export(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="adapters (default: all)", autocompletion=completion.adapter_names),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="gguf (llama.cpp) or onnx (ONNX Runtime)", autocompletion=completion.formats
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="separate|merged",
            help="adapters as files beside the base, or one merged into it",
            **one_of("--mode", completion.modes),
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, … or auto: by measurement; for ONNX fp32, fp16, int8, int4",
            autocompletion=completion.quantizations,
        ),
    ] = None,
    kv_cache: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="KV cache on devices: f16, or less memory with q8_0-f16, q8_0, q4_0; proven with it",
            **one_of("--kv-cache", completion.kv_caches),
        ),
    ] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(
            parser=read(number(above=0)), metavar="MB", help="with auto: maximum size of base and adapters together"
        ),
    ] = None,
    min_decode_tps: Annotated[
        float | None,
        typer.Option(
            parser=read(number(above=0)), metavar="TPS", help="with auto: minimum decode speed on this machine"
        ),
    ] = None,
    imatrix: Annotated[
        bool, typer.Option("--imatrix", help="quantize with an importance matrix of the training rows")
    ] = False,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX=TYPE", help="another type for some tensors (can be repeated)"),
    ] = None,
    refit_rank: RefitRank = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D",
            help="device profile; `edgekit devices` lists them",
            autocompletion=completion.device_names,
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="also one .tar for a device without network: bundle, runtime, installer"),
    ] = False,
    python: Python = None,
    base: OtherBase = None,
    accept_loss: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="ship although the gate refuses; the reason goes into the bundle",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(parser=Path, metavar="DIR", help="bundle folder (default: dist/PROJECT)")
    ] = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Make a bundle for devices: base, adapters and manifest."""
    project = load(folder, base)
    options: dict[str, Any] = {
        "output": output,
        "format": format,
        "mode": mode,
        "quantize": quantize,
        "kv_cache": kv_cache,
        "device": device,
        "imatrix": imatrix,
        "tensor_types": _tensor_types(tensor_type or []),
        "refit_rank": refit_rank,
        "accept_loss": accept_loss,
        "max_mb": max_mb,
        "min_decode_tps": min_decode_tps,
    }
    from edgekit.exporting.options import ExportOptions
    from edgekit.exporting.preflight import check_export

    check_export(project, names or [], ExportOptions(**options))
    if python is not None and not offline:
        raise UsageError("--python is for the runtime that --offline packs", "add --offline, or leave --python out")
    target = device or project.export.device
    pack = _offline_packer(target, python) if offline else None
    from edgekit.exporting.export import export

    bundle, manifest = export(project, names or [], **options)
    archive = None if pack is None else pack(bundle)
    from edgekit.site import site_for_device

    site = site_for_device(bundle, target)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "offline": archive and str(archive),
                "site": site and str(site),
                "version": manifest.version,
                "quality": manifest.quality,
                "adapters": manifest.proofs(),
                "files": [vars(file) for file in manifest.files],
            }
        )
    else:
        _show(bundle, manifest, archive, site)


def _show(bundle: Path, manifest: Manifest, archive: Path | None, site: Path | None) -> None:
    from edgekit.proof.words import headline, proof_lines

    for file in manifest.files:
        print(f"{size_text(file.size)}  {file.path}")
    for name, figures in manifest.proofs().items():
        print(f"{name}:")
        for question, said in proof_lines(figures):
            print(f"  {question:8}  {said}")
    print(f"gate {headline(manifest.quality)}; bundle {manifest.name} {manifest.version}: {bundle}")
    if archive is not None:
        print(f"for the device: {archive}; there: tar xf {archive.name} && sh {archive.stem}/install.sh")
    if site is not None:
        print(f"site: {site}; try it: edgekit serve-site {site}")


def _offline_packer(device: str | None, python: str | None) -> Callable[[Path], Path]:
    """What makes the .tar.  The runtime is built before the export: a missing compiler is told at once."""
    from edgekit.targets.devices import device_profile
    from edgekit.targets.offline_kit import offline_archive
    from edgekit.targets.runtime_build import build_runtime

    if device is None:
        raise UsageError("--offline needs to know the device", "say --device raspberry-pi-5, or export.device")
    house = build_runtime(device_profile(device), python=python)
    return lambda folder: offline_archive(folder, house, device)


def _tensor_types(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.rpartition("=") for each in given]
    for pattern, _, kind in pairs:
        if not pattern or not kind:
            raise UsageError("--tensor-type needs REGEX=TYPE", "--tensor-type ffn_down=Q6_K")
    return {pattern: kind for pattern, _, kind in pairs}
