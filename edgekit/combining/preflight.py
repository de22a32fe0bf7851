"""What a combination was asked for, checked in a moment: before torch is imported or a base fetched."""

from __future__ import annotations

from edgekit.bases.resolve import check_project_base
from edgekit.data import Row, load_rows
from edgekit.project import VIRTUAL, Adapter, Project
from edgekit.project.data_files import NO_ROWS
from edgekit.project.folders import adapter_folder, is_adapter_folder, part_folder, told_part
from edgekit.training.no_update import no_update
from edgekit_exporters.peft.combinations import LEARNED
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.atomic import check_replaceable
from edgekit_runtime.hints import did_you_mean


def check_combine(project: Project, name: str, *, accept_loss: str | None = None, search: bool = False) -> Adapter:
    """Look at all that combining needs; the adapter called ``name``.

    Raises:
        UsageError: it isn't made of others, no reason is given, or a ``search`` for weights that are trained.
        InputError: a part that is not there, bad rows, no such base, or a folder that can't be replaced.
    """
    adapter = project.adapter(name)
    if adapter.combined is None:
        raise UsageError(f"adapter {name} is not made of others", "give its parts with --from a=0.7,b=0.3")
    if accept_loss is not None and not accept_loss.strip():
        raise UsageError("--accept-loss has no reason", "say why the loss is acceptable")
    learned = adapter.combined.method == LEARNED
    if learned and search:
        raise UsageError("method: learned trains the weights", "leave out --search, or search those of cat")
    called = [told_part(project, part) for part in adapter.combined.parts]
    twice = next((each for each in called if called.count(each) > 1), None)
    if twice is not None:
        raise InputError(f"two parts of {name} are called {twice}", "give one of their folders another name")
    for part in adapter.combined.parts:
        known = project.adapters.get(part)
        where = part_folder(project, part)
        if part == name or (known is not None and known.combined is not None):
            raise InputError(f"{part} is made of others itself", "name its parts instead")
        if known is not None and known.method in VIRTUAL and known.path is None:
            raise no_update(part)
        if known is None and not where.exists():
            hint = did_you_mean(part, [each for each in project.adapters if each != name], "there are")
            raise InputError(f"there is no adapter {part!r}, in the project or at a path", hint)
        if not (where.exists() if known is None or known.path else is_adapter_folder(where)):
            raise InputError(f"adapter {part} is not in {where}", f"run `edgekit train {part}` first")
        if known is not None and (known.data or project.data) and project.gate.rows:
            load_rows(project.data_for(part).eval)
        if learned:
            training_rows(project, part)
    check_replaceable(adapter_folder(project, adapter), is_adapter_folder)
    check_project_base(project)
    return adapter


def training_rows(project: Project, part: str) -> list[Row]:
    """The rows of a part that method ``learned`` trains on.

    Raises:
        InputError: there are none, one alone, or they are preferences.
    """
    adapter = project.adapters.get(part)
    files = None if adapter is None else adapter.data or project.data
    if files is None or files.train == NO_ROWS:
        hint = "name adapters of the project" if adapter is None else f"add data.train to adapters.{part}"
        raise InputError(f"method: learned trains on rows of each part, and there are none of {part}", hint)
    rows = load_rows(project.data_for(part).train)
    if any(row.rejected is not None for row in rows):
        raise InputError(f"method: learned trains on answers, and the rows of {part} are preferences", "use cat")
    if len(rows) < 2:
        raise InputError(f"{part} has one training row, and none is left that tells when to stop", "add rows")
    return rows
