"""`edgekit plan`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from edgekit_runtime.cli.arguments import number, whole
from edgekit_runtime.cli.parser import Program, print_json
from edgekit_runtime.errors import TargetError


def add_plan(program: Program) -> None:
    """Add the command."""
    parser = program.command(
        "plan",
        "does it fit a device, and how fast will it be there?",
        "edgekit plan dist/line-3 --device raspberry-pi-5\n  edgekit plan --device raspberry-pi-4 --base model.gguf",
        _plan,
    )
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="bundle folder or .tar (default: the project's base)")
    add("--device", required=True, metavar="D", help="device profile, or a TOML file of your own")
    add("--base", metavar="BASE", help="a GGUF file, or a base by name, in the place of a bundle")
    add("--quantize", metavar="TYPE", help="with a base: as if it were quantised so")
    add("--memory-mb", type=whole(), metavar="MB", help="RAM of your device, when it has more than the smallest model")
    add("--context", type=whole(), metavar="N", help="tokens of prompt and answer (default: the base's, at most 4096)")
    add("--prompt-tokens", type=whole(), default=256, metavar="N", help="length of the prompt (256)")
    add("--parallel", type=whole(), default=1, metavar="N", help="requests answered at once (1)")
    add("--service", action="store_true", help="with the HTTP service around it")
    add(
        "--min-decode-tps",
        type=number(0),
        default=0.0,
        metavar="TPS",
        help="speed that the best quantisation has to have",
    )
    add("--project", default=".", metavar="DIR", help="project folder (default: this one)")


def _plan(arguments: argparse.Namespace) -> None:
    from edgekit.bases.resolve import project_base, resolve_base
    from edgekit.bases.weights import deployed_weights, weights_named
    from edgekit.project import load_project
    from edgekit.targets.devices import device_profile
    from edgekit.targets.plan import make_plan, report, subject_of_base, subject_of_bundle

    profile = device_profile(arguments.device)
    if arguments.memory_mb is not None:
        profile = dataclasses.replace(profile, memory_mb=arguments.memory_mb)
    if arguments.bundle is not None:
        subject = subject_of_bundle(arguments.bundle)
    elif arguments.base is not None:
        path = Path(arguments.base)
        is_file = path.suffix == ".gguf" and arguments.quantize is None
        if is_file:
            subject = subject_of_bundle(path)
        else:
            base = resolve_base(arguments.base)
            subject = subject_of_base(base, weights_named(arguments.quantize, base.gguf))
    else:
        project = load_project(arguments.project)
        base = project_base(project)
        subject = subject_of_base(base, deployed_weights(project.export, base.gguf, arguments.quantize))
    planned = make_plan(
        profile,
        subject,
        context=arguments.context,
        prompt_tokens=arguments.prompt_tokens,
        parallel=arguments.parallel,
        service=arguments.service,
        min_decode_tps=arguments.min_decode_tps,
    )
    print_json(planned.as_dict()) if arguments.json else print(report(planned))
    if not planned.plan.memory.fits:
        raise TargetError(f"it doesn't fit {profile.name}", _mend(planned.advice.quantization, planned.advice.context))


def _mend(quantization: str | None, context: int | None) -> str:
    ways = [f"export with --quantize {quantization}"] if quantization else []
    ways += [f"run with --context {context}"] if context else []
    return " or ".join(ways) if ways else "take a smaller base or a device with more memory"
