"""`edgekit plan`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import bases, quantizations
from edgekit.cli.frame import Json, command
from edgekit.cli.options import Device, ProjectFolder, read
from edgekit_runtime.cli.arguments import number, whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import TargetError


@command("edgekit plan dist/line-3 --device raspberry-pi-5", "edgekit plan --device raspberry-pi-4 --base model.gguf")
def plan(
    device: Device,
    bundle: Annotated[
        Path | None,
        typer.Argument(parser=Path, metavar="BUNDLE", help="bundle folder or .tar (default: the project's base)"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="a GGUF file or a base's name, instead of a bundle",
            autocompletion=bases,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="plan a base model at this quantization type", autocompletion=quantizations),
    ] = None,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            parser=read(whole()), metavar="MB", help="RAM of your device, if it has more than the smallest variant"
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            parser=read(whole()),
            metavar="N",
            help="tokens of prompt and answer (default: the base's, at most 4096, or 2048 with --parallel)",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(parser=read(whole()), metavar="N", help="length of the prompt (256)")
    ] = 256,
    parallel: Annotated[int, typer.Option(parser=read(whole()), metavar="N", help="requests answered at once (1)")] = 1,
    service: Annotated[bool, typer.Option("--service", help="with the HTTP service around it")] = False,
    min_decode_tps: Annotated[
        float,
        typer.Option(parser=read(number(0)), metavar="TPS", help="minimum speed of the recommended quantization type"),
    ] = 0.0,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Does it fit a device, and how fast will it be there?"""
    from edgekit.bases.resolve import project_base, resolve_base
    from edgekit.bases.weights import deployed_weights, tell_requantized, weights_named
    from edgekit.project import load_project
    from edgekit.targets.devices import device_profile
    from edgekit.targets.plan import make_plan, report
    from edgekit.targets.subject import subject_of_base, subject_of_bundle
    from edgekit_exporters.gguf.split import joined

    profile = device_profile(device)
    if memory_mb is not None:
        profile = dataclasses.replace(profile, memory_mb=memory_mb)
    if bundle is not None:
        subject = subject_of_bundle(bundle)
    elif base is not None:
        path = Path(base)
        if path.suffix == ".gguf" and quantize is None:
            subject = subject_of_bundle(joined(path) if path.is_file() else path)
        else:
            named = resolve_base(base)
            weights = weights_named(quantize, named.gguf)
            tell_requantized(named, weights)
            subject = subject_of_base(named, weights)
    else:
        project = load_project(folder)
        own = project_base(project)
        weights = deployed_weights(project.export, own.gguf, quantize)
        tell_requantized(own, weights, merged=project.export.mode == "merged")
        subject = subject_of_base(own, weights, project.export)
    planned = make_plan(
        profile,
        subject,
        context=context,
        prompt_tokens=prompt_tokens,
        parallel=parallel,
        service=service,
        min_decode_tps=min_decode_tps,
    )
    print_json(planned.as_dict()) if as_json else print(report(planned))
    if not planned.plan.memory.fits:
        raise TargetError(f"it doesn't fit {profile.name}", _hint(planned.advice.quantization, planned.advice.context))


def _hint(quantization: str | None, context: int | None) -> str:
    ways = [f"export with --quantize {quantization}"] if quantization else []
    ways += [f"run with --context {context}"] if context else []
    return " or ".join(ways) if ways else "take a smaller base or a device with more memory"
