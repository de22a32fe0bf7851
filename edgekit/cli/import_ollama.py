"""`edgekit import-ollama`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli import completion
from edgekit.cli.frame import Json, command
from edgekit.cli.options import RefitRank
from edgekit_runtime.cli.parser import print_json, size_text
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit.importing.ollama.make import Imported
    from edgekit_runtime.formats.manifest import FileEntry


@command(
    "edgekit import-ollama Modelfile",
    "edgekit import-ollama Modelfile --for dist/line-3",
)
def import_ollama(
    model: Annotated[
        str,
        typer.Argument(metavar="MODELFILE", help="Modelfile, its folder, or a model that Ollama has on this machine"),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--for", parser=Path, metavar="BUNDLE", help="make adapter files for devices that have this bundle's base"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="of bundle and adapter (default: that of the model)")
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="another type for the base (default: its own; Q8_0 for safetensors)",
            autocompletion=completion.quantizations,
        ),
    ] = None,
    chat_template: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="a known chat template or a jinja file, for a base without its own"),
    ] = None,
    refit_rank: RefitRank = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=Path, metavar="DIR", help="bundle folder (default: dist/NAME); with --for, folder (default: dist)"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a bundle of a model of Ollama, or adapter files for devices that have its base."""
    if bundle is not None and (quantize or chat_template):
        raise UsageError("--quantize and --chat-template are for the base of a bundle", "leave them or --for out")
    from edgekit.importing.ollama.make import import_adapters, import_bundle
    from edgekit.importing.ollama.model import read_model

    found = read_model(model, base_needed=bundle is None)
    if bundle is not None:
        made = import_adapters(found, bundle, output, name=name, refit_rank=refit_rank)
    else:
        made = import_bundle(
            found, output, name=name, quantize=quantize, chat_template=chat_template, refit_rank=refit_rank
        )
    if as_json:
        manifest = made.manifest
        print_json(
            {
                "bundle": str(made.files[0]) if manifest else None,
                "adapters": made.adapters,
                "files": [vars(each) for each in (manifest.files if manifest else map(_entry, made.files))],
                "quality": manifest.quality if manifest else None,
                "left_out": made.left_out,
                "notes": made.notes,
            }
        )
    else:
        _show(made)


def _entry(path: Path) -> FileEntry:
    from edgekit_runtime.formats.bundle import file_digest
    from edgekit_runtime.formats.manifest import FileEntry

    return FileEntry(str(path), path.stat().st_size, file_digest(path))


def _show(made: Imported) -> None:
    from edgekit.proof.words import headline

    manifest = made.manifest
    for file in manifest.files if manifest else ():
        print(f"{size_text(file.size)}  {file.path}")
    for each in made.left_out:
        print(f"left out: {each}")
    for each in made.notes:
        print(f"note: {each}")
    print("not proven: the base and each adapter ran once; there are no evaluation rows of a trained model")
    if manifest is None:
        for path in made.files:
            print(f"{size_text(path.stat().st_size)}  {path}; on the device: edgekit-runtime adapters install FILE")
        return
    folder = made.files[0]
    print(f"gate {headline(manifest.quality)}; bundle {manifest.name} {manifest.version}: {folder}")
    print(f"try it: edgekit-runtime serve {folder}")
