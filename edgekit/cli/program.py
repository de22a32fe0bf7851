"""The ``edgekit`` command.  Each command parses, calls one function of a room, and prints."""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.bench import add_bench
from edgekit.cli.build_runtime import add_build_runtime, takes_python
from edgekit.cli.deploy import add_deploy
from edgekit.cli.devices import add_devices
from edgekit.cli.plan import add_plan
from edgekit.cli.schema import add_schema
from edgekit.cli.site import add_serve_site, add_site
from edgekit_runtime.cli.arguments import number, whole
from edgekit_runtime.cli.parser import Program, print_json, size_text
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit.project import Project


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    version = importlib.metadata.version("edgekit")
    program = Program("edgekit", "From data to a proven, swappable adapter on an edge device.", version)
    for add in (_add_init, add_schema, _add_train, _add_evaluate, _add_merge, _add_export):
        add(program)
    for add in (add_bench, add_devices, add_plan, add_build_runtime, add_deploy, add_site, add_serve_site):
        add(program)
    for add in (_add_keygen, _add_sign, _add_verify, _add_demo):
        add(program)
    return program.main(arguments)


def _project(arguments: argparse.Namespace) -> Project:
    from edgekit.project import load_project

    project = load_project(arguments.project)
    if getattr(arguments, "base", None) is None:
        return project
    from edgekit.bases.resolve import on_base

    return on_base(project, arguments.base)


def _takes_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", default=".", metavar="DIR", help="project folder (default: this one)")


def _takes_base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", metavar="BASE", help="another base than the project's: a GGUF that devices hold, say")


def _add_init(program: Program) -> None:
    parser = program.command("init", "write a new project with example data", "edgekit init line-3", _init)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--template", default="inspection", help="inspection (default), monitoring, chat or caption")


def _init(arguments: argparse.Namespace) -> None:
    from edgekit.examples.init import init_project

    file = init_project(arguments.folder, arguments.template)
    if arguments.json:
        print_json({"project": str(file)})
    else:
        print(f"wrote {file}\nnext: cd {shlex.quote(str(arguments.folder))} && edgekit train")


def _add_train(program: Program) -> None:
    parser = program.command(
        "train", "train an adapter (all of the project without NAME)", "edgekit train inspection", _train
    )
    parser.add_argument("name", nargs="?", help="adapter")
    parser.add_argument("--resume", action="store_true", help="go on after Ctrl-C, kill or power loss")
    _takes_base(parser)
    _takes_project(parser)


def _train(arguments: argparse.Namespace) -> None:
    project = _project(arguments)
    wanted = [project.adapter(arguments.name)] if arguments.name else list(project.adapters.values())
    names = [adapter.name for adapter in wanted if arguments.name or adapter.path is None]
    if not names:
        raise UsageError("every adapter of the project was trained elsewhere", "go on with `edgekit export`")
    from edgekit.training.preflight import check_train

    check_train(project, names)
    from edgekit.training.run import train

    folders = {name: train(project, name, resume=arguments.resume) for name in names}
    if arguments.json:
        print_json({"adapters": {name: str(folder) for name, folder in folders.items()}})
    else:
        for name, folder in folders.items():
            print(f"{name}: {folder}")


def _add_evaluate(program: Program) -> None:
    parser = program.command(
        "evaluate",
        "score an adapter and its base on the evaluation rows",
        "edgekit evaluate inspection --artifact dist/line-3",
        _evaluate,
    )
    parser.add_argument("name", nargs="?", help="adapter (default: the only one)")
    parser.add_argument(
        "--artifact",
        type=Path,
        metavar="BUNDLE",
        help="answer with exported files on the device runtime; a GGUF base is run with this adapter",
    )
    _takes_base(parser)
    parser.add_argument("--limit", type=whole(), metavar="N", help="use only the first N rows")
    parser.add_argument("--no-base", action="store_true", help="leave the bare base out")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON document, with all answers")
    _takes_project(parser)


def _evaluate(arguments: argparse.Namespace) -> None:
    project = _project(arguments)
    from edgekit.evaluation.preflight import check_evaluate

    check_evaluate(project, arguments.name, artifact=arguments.artifact, output=arguments.output)
    from edgekit.evaluation.evaluate import evaluate
    from edgekit.evaluation.table import evaluation_table

    evaluation = evaluate(
        project,
        arguments.name,
        artifact=arguments.artifact,
        limit=arguments.limit,
        with_base=not arguments.no_base,
    )
    print_json(evaluation.as_dict()) if arguments.json else print(evaluation_table([evaluation]))
    if arguments.output is not None:  # after what was measured is on the screen: writing may fail
        evaluation.save(arguments.output)


def _add_merge(program: Program) -> None:
    parser = program.command(
        "merge", "merge adapters into the float base (a Hugging Face folder)", "edgekit merge inspection", _merge
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="adapters, in this order (default: the only one)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write")
    _takes_project(parser)


def _merge(arguments: argparse.Namespace) -> None:
    project = _project(arguments)
    from edgekit.exporting.preflight import check_merge

    check_merge(project, arguments.names, output=arguments.output)
    from edgekit.exporting.merge import merge

    folder = merge(project, arguments.names or None, output=arguments.output)
    print_json({"folder": str(folder)}) if arguments.json else print(folder)


def _add_export(program: Program) -> None:
    parser = program.command(
        "export",
        "make a bundle for devices: base, adapters and manifest",
        "edgekit export --format gguf --quantize Q4_0",
        _export,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="adapters (default: all)")
    parser.add_argument("--format", help="gguf (llama.cpp) or onnx (ONNX Runtime)")
    parser.add_argument(
        "--mode", choices=("separate", "merged"), help="adapters beside the base, or one folded into it"
    )
    parser.add_argument(
        "--quantize",
        metavar="TYPE",
        help="F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, … or auto: by measurement; for ONNX fp32, fp16, int8, int4",
    )
    parser.add_argument(
        "--max-mb", type=number(above=0), metavar="MB", help="with auto: largest base and adapters together"
    )
    parser.add_argument(
        "--min-decode-tps", type=number(above=0), metavar="TPS", help="with auto: least decode speed, here"
    )
    parser.add_argument("--imatrix", action="store_true", help="weigh the quantiser by the training rows")
    parser.add_argument(
        "--tensor-type", action="append", default=[], metavar="REGEX=TYPE", help="another type for some tensors"
    )
    parser.add_argument(
        "--refit-rank",
        type=whole(),
        metavar="N",
        help="closest LoRA of rank N for adapters that aren't additive (DoRA)",
    )
    parser.add_argument("--device", help="device profile; `edgekit devices` lists them")
    parser.add_argument(
        "--offline", action="store_true", help="also one .tar for a device without network: bundle, runtime, installer"
    )
    takes_python(parser)
    _takes_base(parser)
    parser.add_argument(
        "--accept-loss",
        metavar="REASON",
        help="ship although the gate refuses: worse than the trained model, or no better than the base",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="bundle folder (default: dist/PROJECT)")
    _takes_project(parser)


def _export(arguments: argparse.Namespace) -> None:
    project = _project(arguments)
    options: dict[str, Any] = {
        "output": arguments.output,
        "format": arguments.format,
        "mode": arguments.mode,
        "quantize": arguments.quantize,
        "device": arguments.device,
        "imatrix": arguments.imatrix,
        "tensor_types": _tensor_types(arguments.tensor_type),
        "refit_rank": arguments.refit_rank,
        "accept_loss": arguments.accept_loss,
        "max_mb": arguments.max_mb,
        "min_decode_tps": arguments.min_decode_tps,
    }
    from edgekit.exporting.options import ExportOptions
    from edgekit.exporting.preflight import check_export

    check_export(project, arguments.names, ExportOptions(**options))
    if arguments.python is not None and not arguments.offline:
        raise UsageError("--python is for the runtime that --offline packs", "add --offline, or leave --python out")
    pack = _offline_packer(project, arguments) if arguments.offline else None
    from edgekit.exporting.export import export

    folder, manifest = export(project, arguments.names, **options)
    archive = None if pack is None else pack(folder)
    from edgekit.proof.words import headline, proof_lines
    from edgekit.site import site_for_device

    site = site_for_device(folder, arguments.device or project.export.device)
    if arguments.json:
        print_json(
            {
                "bundle": str(folder),
                "offline": archive and str(archive),
                "site": site and str(site),
                "version": manifest.version,
                "quality": manifest.quality,
                "adapters": manifest.proofs(),
                "files": [vars(file) for file in manifest.files],
            }
        )
    else:
        for file in manifest.files:
            print(f"{size_text(file.size)}  {file.path}")
        for name, figures in manifest.proofs().items():
            print(f"{name}:")
            for question, said in proof_lines(figures):
                print(f"  {question:8}  {said}")
        print(f"gate {headline(manifest.quality)}; bundle {manifest.name} {manifest.version}: {folder}")
        if archive is not None:
            print(f"for the device: {archive}; there: tar xf {archive.name} && sh {archive.stem}/install.sh")
        if site is not None:
            print(f"site: {site}; try it: edgekit serve-site {site}")


def _offline_packer(project: Project, arguments: argparse.Namespace) -> Callable[[Path], Path]:
    """What makes the .tar.  The runtime is built before the export: a missing compiler is told at once."""
    from edgekit.targets.devices import device_profile
    from edgekit.targets.offline_kit import offline_archive
    from edgekit.targets.runtime_build import build_runtime

    device = arguments.device or project.export.device
    if device is None:
        raise UsageError("--offline needs to know the device", "say --device raspberry-pi-5, or export.device")
    house = build_runtime(device_profile(device), python=arguments.python)
    return lambda folder: offline_archive(folder, house, device)


def _tensor_types(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.rpartition("=") for each in given]
    for pattern, _, kind in pairs:
        if not pattern or not kind:
            raise UsageError("--tensor-type needs REGEX=TYPE", "--tensor-type ffn_down=Q6_K")
    return {pattern: kind for pattern, _, kind in pairs}


def _add_keygen(program: Program) -> None:
    parser = program.command("keygen", "make a key pair for signing", "edgekit keygen line-3.key", _keygen)
    parser.add_argument("key", type=Path, metavar="FILE", help="private key to write; the public one is FILE.pub")


def _keygen(arguments: argparse.Namespace) -> None:
    from edgekit_runtime.formats.signing import make_key

    public = make_key(arguments.key)
    if arguments.json:
        print_json({"private": str(arguments.key), "public": str(public)})
    else:
        print(f"private key, keep it: {arguments.key}\npublic key, for devices: {public}")


def _add_sign(program: Program) -> None:
    parser = program.command(
        "sign", "sign a bundle folder or an adapter file", "edgekit sign dist/line-3 --key line-3.key", _sign
    )
    parser.add_argument("what", type=Path, help="bundle folder, or adapter file")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key of `edgekit keygen`")


def _sign(arguments: argparse.Namespace) -> None:
    from edgekit_runtime.formats.signing import sign

    signature = sign(arguments.what, arguments.key)
    print_json({"signature": str(signature)}) if arguments.json else print(signature)


def _add_verify(program: Program) -> None:
    parser = program.command("verify", "check every file of a bundle", "edgekit verify dist/line-3", _verify)
    parser.add_argument("bundle", type=Path, help="bundle folder or .tar")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="public keys: one of them has to have signed it")


def _verify(arguments: argparse.Namespace) -> None:
    from edgekit_runtime.formats.bundle import open_bundle

    with open_bundle(arguments.bundle, trust=arguments.trust) as bundle:
        manifest = bundle.manifest
    if arguments.json:
        print_json({"bundle": manifest.name, "version": manifest.version, "files": len(manifest.files), "ok": True})
    else:
        print(f"{manifest.name} {manifest.version}: {len(manifest.files)} files are what the manifest says")


def _add_demo(program: Program) -> None:
    parser = program.command("demo", "run the whole path on a real model, in a few minutes", "edgekit demo", _demo)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("demo"), metavar="DIR", help="where (default: demo)"
    )


def _demo(arguments: argparse.Namespace) -> None:
    from edgekit.project import PROJECT_FILE
    from edgekit_runtime.files.atomic import check_replaceable

    if not (arguments.folder / PROJECT_FILE).exists():
        check_replaceable(arguments.folder, lambda _: False)
    from edgekit.examples.demo import run_demo

    document = run_demo(arguments.folder, quiet=arguments.json)
    if arguments.json:
        print_json(document)
