"""What the demo image base sees, and what a project's caption adapters lose from torch to the device.

python benchmarks/captions.py                      # the base's captions of held-out images, on the device engine
python benchmarks/captions.py --project camera     # adapters in torch, and on the device over each quantisation
python benchmarks/captions.py --project camera --quantize Q4_0 --projectors F32 F16 Q8_0   # and each projector type
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from demo_vlm.images import Images
from edgekit.bases.demo_vlm.build import NAME
from edgekit.bases.demo_vlm.captions import QUESTION, right_shares
from edgekit.bases.demo_vlm.parts import SIZE
from edgekit.bases.resolve import resolve_base
from edgekit.evaluation.evaluate import Evaluation, evaluate
from edgekit.evaluation.scoring import bootstrap_interval
from edgekit.project import load_project
from edgekit_exporters.bundle import ANY_ISA, BundlePlan, write_bundle
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.projector import PROJECTOR_TYPES, projector_gguf
from edgekit_runtime import Runtime
from edgekit_runtime.formats.images import Picture
from pretrain_demo_vlm import TEST_IMAGES, TEST_SEED

log = logging.getLogger("captions")


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--project", type=Path, help="a project of `edgekit init --template caption`, trained")
    parser.add_argument("--quantize", nargs="+", default=["F16", "Q8_0", "Q4_0"], metavar="TYPE")
    parser.add_argument(
        "--projectors", nargs="+", choices=PROJECTOR_TYPES, metavar="TYPE", help="the project's without"
    )
    parser.add_argument("--images", type=int, default=TEST_IMAGES, help="held-out images or rows, at most")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M")
    if options.project is None:
        print(base_table(options.quantize, options.images))
    else:
        print(adapter_table(options.project, options.quantize, options.projectors, options.images))


def base_table(quantizations: list[str], count: int) -> str:
    """Right parts, kinds and places of the base's own captions, in %."""
    images = Images(count, TEST_SEED)
    lines = ["| | part | kind | place |", "|---|---|---|---|"]
    for quantization in quantizations:
        log.info("the base at %s", quantization)
        shares = right_shares(images.scenes, _captions(images, quantization))
        lines.append(f"| {quantization} | " + " | ".join(f"{share.right:.1f}" for share in shares.values()) + " |")
    chance = " | ".join(f"{share.chance:.1f}" for share in shares.values())
    return "\n".join([*lines, f"| always the commonest answer | {chance} |"])


def _captions(images: Images, quantization: str) -> list[str]:
    base = resolve_base(NAME)
    plan = BundlePlan(
        name=NAME,
        version="1",
        task="caption",
        base=base,
        base_file=base_gguf(base, quantization),
        projector=projector_gguf(base),
        merged=[],
        adapters=[],
        default_adapter=None,
        isa=ANY_ISA,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(plan, Path(folder, "bundle"))
        with Runtime(Path(folder, "bundle"), context=256) as runtime:
            return [
                runtime.generate(QUESTION, image=Picture(SIZE, SIZE, image.tobytes()), max_tokens=24).text
                for image in images.pixels.numpy()
            ]


def adapter_table(folder: Path, quantizations: list[str], projectors: list[str] | None, count: int) -> str:
    """The task's score of base and adapter, in % with a 95 % interval."""
    project = load_project(folder)
    base = resolve_base(project.base, relative_to=project.folder)
    pairs = [(text, seen) for text in quantizations for seen in projectors or [project.export.projector]]
    labels = [text if projectors is None else f"{text}, projector {seen}" for text, seen in pairs]
    lines = [f"| adapter | base, torch | torch | {' | '.join(labels)} |", "|---" * (3 + len(pairs)) + "|"]
    for name in project.adapters:
        log.info("%s in torch", name)
        torch = evaluate(project, name, limit=count)
        cells = [_cell(torch.base_score.per_row if torch.base_score else ()), _cell(torch.adapter_score.per_row)]
        for quantization, projector in pairs:
            log.info("%s over %s, projector %s", name, quantization, projector)
            seeing = replace(project, export=replace(project.export, projector=projector))
            found: Evaluation = evaluate(
                seeing, name, artifact=base_gguf(base, quantization), limit=count, with_base=False
            )
            cells.append(_cell(found.adapter_score.per_row))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: tuple[float, ...]) -> str:
    low, high = bootstrap_interval(values)
    return f"{100 * statistics.fmean(values):.1f} ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    main()
