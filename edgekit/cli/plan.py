"""`edgekit plan`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import completion
from edgekit.cli.frame import Json, command
from edgekit.cli.options import ProjectFolder, one_of, read
from edgekit_runtime.cli.arguments import number, whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import TargetError, UsageError


@command("edgekit plan dist/line-3 --device raspberry-pi-5", "edgekit plan --device raspberry-pi-4 --base model.gguf")
def plan(
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D",
            help="device profile, or a TOML file of your own (default: the project's export.device)",
            autocompletion=completion.device_names,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Argument(parser=Path, metavar="BUNDLE", help="bundle folder or .tar (default: the project's base)"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="a GGUF file or a base's name, instead of a bundle",
            autocompletion=completion.bases,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="plan a base model at this quantization type", autocompletion=completion.quantizations
        ),
    ] = None,
    kv_cache: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="KV cache: f16, q8_0-f16, q8_0 or q4_0 (default: the bundle's or the project's)",
            **one_of("--kv-cache", completion.kv_caches),
        ),
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
    from edgekit.bases.resolve import check_project_base
    from edgekit.project import AUTO, DECODE_BUDGET, load_project
    from edgekit.targets.adapter_cost import project_shapes
    from edgekit.targets.devices import device_profile
    from edgekit.targets.plan import make_plan, report
    from edgekit.targets.subject import subject_of_bundle, subject_of_name
    from edgekit.training.preflight import check_virtual
    from edgekit_exporters.gguf.split import joined

    named = device or _projects_device(folder, is_needed=bundle is None and base is None)
    profile = device_profile(named)
    if memory_mb is not None:
        profile = dataclasses.replace(profile, memory_mb=memory_mb)
    budget = DECODE_BUDGET
    if bundle is not None:
        subject = subject_of_bundle(bundle, kv_cache)
    elif base is not None:
        path = Path(base)
        if path.suffix == ".gguf" and quantize is None:
            subject = subject_of_bundle(joined(path) if path.is_file() else path, kv_cache)
        else:
            subject = subject_of_name(base, quantize, kv_cache=kv_cache)
    else:
        project = load_project(folder)
        check_project_base(project)
        aimed = dataclasses.replace(project, export=dataclasses.replace(project.export, device=named))
        for adapter in project.adapters.values():
            check_virtual(aimed, adapter)
        subject = subject_of_name(project.base, quantize, project, kv_cache=kv_cache)
        shapes = project_shapes(project.adapters.values(), subject.matrices)
        stacks = {stack.name: tuple(stack.scales) for stack in project.stacks.values()}
        subject = dataclasses.replace(subject, shapes=shapes, stacks=stacks)
        budget = max((each.least_share for each in project.adapters.values() if each.targets == AUTO), default=budget)
    planned = make_plan(
        profile,
        subject,
        context=context,
        prompt_tokens=prompt_tokens,
        parallel=parallel,
        service=service,
        min_decode_tps=min_decode_tps,
        budget=budget,
    )
    print_json(planned.as_dict()) if as_json else print(report(planned))
    if not planned.plan.memory.fits:
        raise TargetError(f"it doesn't fit {profile.name}", _hint(planned.advice.quantization, planned.advice.context))


def _projects_device(folder: str, *, is_needed: bool) -> str:
    """What the project in ``folder`` is exported for; there has to be a project where it ``is_needed`` anyway."""
    from edgekit.project import PROJECT_FILE, load_project

    named = load_project(folder).export.device if is_needed or Path(folder, PROJECT_FILE).is_file() else None
    if named is None:
        raise UsageError("plan needs to know the device", "say --device raspberry-pi-5, or set export.device")
    return named


def _hint(quantization: str | None, context: int | None) -> str:
    ways = [f"export with --quantize {quantization}"] if quantization else []
    ways += [f"run with --context {context}"] if context else []
    return " or ".join(ways) if ways else "take a smaller base or a device with more memory"
