"""The work folder of a training: checkpoints to go on from, the adapter as initialised, a disk that is full."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekit.project import Project
from edgekit.project.folders import adapter_folder, is_adapter_folder
from edgekit_exporters.peft.names import ADAPTER
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.system_errors import FULL, errno_of

log = logging.getLogger(__name__)

WORK_FOLDER = ".edgekit"
RECIPE_FILE = "recipe.json"
WRITING = ("PytorchStreamWriter", "inline_container")  # torch's file writer, and its source when a file ends short


def work_folder(project: Project, name: str) -> Path:
    """Where the checkpoints of an adapter of the project lie."""
    return project.folder / WORK_FOLDER / "train" / name


@contextlib.contextmanager
def full_disk_told(work: Path) -> Iterator[None]:
    """Say that the work isn't lost; what torch says tells neither what went wrong with a file nor where."""
    try:
        yield
    except Exception as error:
        refusal = error.__context__ if isinstance(error, InputError) else error  # what publishing makes one of
        is_full = isinstance(refusal, Exception) and errno_of(refusal) in FULL
        if not is_full and not (isinstance(error, RuntimeError) and any(sign in str(error) for sign in WRITING)):
            raise
        place = getattr(error, "filename", None) or work
        problem = f"what is trained can't be written to {place}{' (the disk is full)' if is_full else ''}"
        raise InputError(problem, "free some space, then go on with --resume, or anew where that finds none") from error


def find_checkpoint(work: Path, recipe: dict[str, Any], *, resume: bool) -> Path | None:
    """The checkpoint to go on from; a fresh start clears what an earlier run left.

    From a checkpoint of the last step the Trainer would make one step more.  The one before it leads to the same
    adapter; None where there is no other.
    """
    note = work / RECIPE_FILE
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()
    found = _checkpoints(work)
    if resume:
        if not found:
            raise InputError(f"there is no interrupted training in {work}", "start without --resume")
        if not note.exists() or note.read_text() != digest:
            raise InputError(
                "the settings or data have changed since that training was interrupted",
                "start without --resume, or put them back (what was given by --set too)",
            )
        return next((each for each in reversed(found) if not _is_last(each)), None)
    if found:
        log.warning("starting over; the interrupted training at %s is dropped", found[-1].name)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    note.write_text(digest)
    return None


def _checkpoints(work: Path) -> list[Path]:
    """Those that are whole, oldest first."""
    whole = (state.parent for state in work.glob("checkpoint-*/trainer_state.json"))  # the Trainer writes it late
    return sorted(whole, key=lambda path: int(path.name.rpartition("-")[2]))


def _is_last(checkpoint: Path) -> bool:
    """Whether the training has made all its steps there."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def is_interrupted(project: Project, names: Sequence[str]) -> bool:
    """Whether the training of one of these adapters was interrupted, and can go on."""
    return any(_checkpoints(work_folder(project, name)) for name in names)


def left_to_train(project: Project, names: Sequence[str]) -> dict[str, bool]:
    """Which of several adapters an interrupted command has left, and whether each goes on from a checkpoint.

    Adapters are trained one after the other.  Those before the interrupted one are done, if they are there; those
    after it have not begun.
    """
    works = {name: work_folder(project, name) for name in names}
    begun = next((number for number, work in enumerate(works.values()) if (work / RECIPE_FILE).exists()), None)
    if begun is None or len(names) == 1:
        return dict.fromkeys(names, True)  # with no checkpoint, that is told
    done = [name for name in names[:begun] if is_adapter_folder(adapter_folder(project, project.adapter(name)))]
    for name in done:
        log.info("%s is trained already; `edgekit train %s` trains it again", name, name)
    return {name: bool(_checkpoints(work)) for name, work in works.items() if name not in done}


def save_initial(model: Any, folder: Path) -> None:
    """Keep the adapter as initialised: the trained one is saved as the difference to it (see PEFT's PiSSA guide)."""
    config = model.peft_config[ADAPTER]
    init, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(str(folder))
    config.init_lora_weights = init


def save_adapter(model: Any, folder: Path, initial: Path | None) -> None:
    """Write the PEFT folder of a trained model; ``initial`` is what :func:`save_initial` has kept."""
    options: dict[str, Any] = {"save_embedding_layers": False}  # never trained; asking PEFT to look needs the network
    if initial is not None:
        options["path_initial_model_for_weight_conversion"] = str(initial)
    model.save_pretrained(str(folder), **options)
