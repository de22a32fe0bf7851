"""`edgekit bench`: the device benchmark here, in a page, on a device, or on an emulated one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import bench_targets, kv_caches
from edgekit.cli.frame import Json, command
from edgekit.cli.options import Ssh, one_of, read
from edgekit_runtime.cli.arguments import KV_CACHE, whole
from edgekit_runtime.errors import UsageError
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.machine import MOST_THREADS

PLOTS = (".png", ".svg", ".pdf")


@command("edgekit bench dist/line-3 --output a.json", "edgekit bench compare a.json b.json")
def bench(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE | compare A.json B.json", help="a bundle folder or .tar, a device store, or two results"
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help="write the result as JSON")] = None,
    repeats: Annotated[
        int, typer.Option(parser=read(whole()), metavar="N", help="repetitions of each measurement (5)")
    ] = 5,
    prompt_tokens: Annotated[
        int, typer.Option(parser=read(whole()), metavar="N", help="length of the prompt (256)")
    ] = 256,
    decode_tokens: Annotated[
        int, typer.Option(parser=read(whole()), metavar="N", help="tokens decoded after it (64)")
    ] = 64,
    threads: Annotated[
        int | None, typer.Option(parser=read(whole(1, MOST_THREADS)), metavar="N", help="default: physical cores")
    ] = None,
    kv_cache: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help=KV_CACHE["help"], **one_of("--kv-cache", kv_caches)),
    ] = None,
    image_size: Annotated[
        str, typer.Option(metavar="WxH", help="images of a caption bundle, pixels (640x480)")
    ] = "640x480",
    quick: Annotated[bool, typer.Option("--quick", help="measure everything once, as a check")] = False,
    plot: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE.png", help="draw the result")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="local (default), ssh://… (what is deployed there), browser or browser:firefox (a page here), or "
            "qemu:PROFILE (that it works, not how fast)",
            autocompletion=bench_targets,
        ),
    ] = None,
    ssh: Ssh = "ssh",
    as_json: Json = False,
) -> None:
    """Measure a bundle, or compare two results."""
    from edgekit_runtime.files.atomic import check_writable

    if plot is not None and plot.suffix not in PLOTS:
        kind = plot.suffix or "a file without suffix"
        raise UsageError(f"there is no plot in {kind}", did_you_mean(kind, PLOTS, "use"))
    for file in (output, plot):
        if file is not None:
            check_writable(file)
    import edgekit_runtime.cli.program as runtime_cli

    options = argparse.Namespace(
        what=what or [],
        output=output,
        repeats=repeats,
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        threads=threads,
        kv_cache=kv_cache,
        image_size=image_size,
        quick=quick,
        ssh=ssh,
        json=as_json,
    )
    if target is None or options.what[:1] == ["compare"]:
        document = runtime_cli.bench_command(options)
    else:
        from edgekit.bench.targets import bench_on

        document = bench_on(target, options)
        runtime_cli.show_bench(document, options)
    if document is not None and plot is not None:
        from edgekit.bench.plot import plot_bench

        plot_bench(document, plot)
