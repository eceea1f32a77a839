"""The folder of an alignment: its files, its settings, and its state.

An alignment that replaces a finished one works in ``unfinished/``, so that the earlier results stay
until the new ones are finished.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modpose import ranks
from modpose.data.inputs import files_of_source
from modpose.errors import InputError
from modpose.files.writing import (
    Staging,
    check_outputs,
    holds_files,
    refuse_input_as_output,
    remove_dead_leftovers,
    replace_atomically,
)
from modpose.search.classify import Assignment, State

if TYPE_CHECKING:
    from modpose.data.source import Source
    from modpose.parts import Shard

SETTINGS, STATE, METRICS = "settings.json", "state.safetensors", "metrics.jsonl"
SEARCHED = "searched.safetensors"
TABLE = "particles.star"
"""The table of poses: written last, so if it exists, all files exist."""
WORK = (STATE, SEARCHED, METRICS, SETTINGS)
"""Files that exist during the alignment."""
WRITTEN = re.compile(
    r"fsc\.csv|index\.html|particles\.star|class\d{3,}(_half[12]|_motion\d+)?\.mrc"
    r"|figures/(averages|fsc|poses|motions)\.png"
)
"""Additional files of a finished alignment."""
UNFINISHED = "unfinished"
SHARDS = "shards"
"""Folder of the parts of an alignment (:mod:`modpose.parts`)."""
DATA = {
    "fingerprint": "the volumes are not those of its start",
    "wedge": "the wedge is not that of its start",
    "ctf": "the CTF is not that of its start",
}
"""Entries of the settings that identify the volumes; an older version lacks them."""


def check_folder(
    folder: Path,
    wanted: dict[str, object],
    source: Source,
    overwrite: bool,
    resume: bool,
    shard: Shard | None = None,
) -> None:
    """Refuse a folder that cannot be written to or continued; nothing is changed."""
    if not ranks.leads():  # the first process may have begun to write
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file stands where the folder should go")
    if shard is not None:
        _check_shards(folder, wanted, shard, overwrite or resume)
    elif resume:
        work = folder / UNFINISHED
        check_settings(work if (work / SETTINGS).is_file() else folder, wanted, DATA)
    elif folder.is_dir() and holds_files(folder):
        if not _is_alignment(folder):
            raise InputError(f"{folder}: the folder is not empty and holds no alignment")
        if not overwrite:
            raise InputError(
                f"{folder}: there is an alignment already; give another -o, or --overwrite to "
                "replace it, or --resume to continue it"
            )
    outputs = [*written_files(folder), folder / "class001.mrc"]
    wedge = wanted.get("wedge")
    others = [Path(wedge)] if isinstance(wedge, str) else []
    refuse_input_as_output(outputs, files_of_source(source, *others))
    check_outputs([folder / TABLE], overwrite=True)


def begin(folder: Path, wanted: dict[str, object]) -> Path:
    """Write the settings; return the folder for the work."""
    work = folder / UNFINISHED if (folder / TABLE).is_file() else folder
    work.mkdir(parents=True, exist_ok=True)
    for name in WORK:
        (work / name).unlink(missing_ok=True)
    text = json.dumps(wanted, indent=2) + "\n"
    replace_atomically(work / SETTINGS, lambda file: file.write(text.encode()), overwrite=True)
    return work


def begin_shard(folder: Path, wanted: dict[str, object], shard: Shard) -> Path:
    """Write the settings, unless another shard has done so; return the folder for the parts."""
    work = folder / SHARDS
    work.mkdir(parents=True, exist_ok=True)
    for path in (folder, work):
        remove_dead_leftovers(path)
    if not (work / SETTINGS).is_file():
        text = json.dumps(wanted | {"shards": shard.of}, indent=2) + "\n"
        replace_atomically(work / SETTINGS, lambda file: file.write(text.encode()), overwrite=True)
    check_settings(work, wanted | {"shards": shard.of}, DATA)
    return work


def _check_shards(folder: Path, wanted: dict[str, object], shard: Shard, again: bool) -> None:
    if again:
        raise InputError("--shard: not with --overwrite or --resume; parts that are there are used")
    work = folder / SHARDS
    if (folder / TABLE).is_file():
        raise InputError(f"{folder}: there is an alignment already; give another -o")
    if (work / SETTINGS).is_file():
        check_settings(work, wanted | {"shards": shard.of}, DATA)
    elif shard.number == 0:
        raise InputError(f"{folder}: no shard of an alignment has begun there, expected {SHARDS}/")
    elif folder.is_dir() and any(path.name != SHARDS for path in folder.glob("[!.]*")):
        raise InputError(f"{folder}: the folder is not empty and holds no shards of an alignment")


def go_on(folder: Path) -> Path:
    """Return the folder of the last started alignment."""
    work = folder / UNFINISHED
    work = work if (work / SETTINGS).is_file() else folder
    for path in (folder, work):
        remove_dead_leftovers(path)
    return work


def written_files(folder: Path) -> Iterator[Path]:
    """Yield the files in the folder that a finished alignment wrote."""
    for path in (*folder.glob("*"), *folder.glob("figures/*")):
        name = path.relative_to(folder).as_posix()
        if WRITTEN.fullmatch(name) and path.is_file():
            yield path


def publish_work(work: Path, folder: Path, place: Staging) -> None:
    """Move the files of the work to the results, if they are in a separate folder."""
    if work != folder:
        for name in WORK:
            if (work / name).is_file():
                shutil.copyfile(work / name, place(folder / name))


def remove_work(work: Path, folder: Path) -> None:
    """Remove the folder of finished work."""
    if work.name == SHARDS:
        shutil.rmtree(work)
    elif work != folder:
        for name in WORK:
            (work / name).unlink(missing_ok=True)
        if not any(work.iterdir()):
            work.rmdir()


# --- what was requested -----------------------------------------------------------------------


def check_settings(work: Path, wanted: dict[str, object], data: dict[str, str]) -> None:
    """Refuse to continue with other settings or other data.

    Parameters
    ----------
    work
        Folder of what was begun.
    wanted
        The settings now.
    data
        A sentence for each entry that identifies the data; an older version may lack these.
    """
    earlier = settings_of(work)
    folder = work.parent if work.name in (UNFINISHED, SHARDS) else work
    for name, value in wanted.items():
        if earlier.get(name) == value or (name in data and name not in earlier):
            continue
        if name in data:
            raise InputError(f"{folder}: {data[name]}; --overwrite starts again")
        expected = f"{earlier.get(name)} as at the start"
        raise InputError.of(folder, f"{name} to continue", value, expected)


def holds_search(folder: Path) -> bool:
    """Tell whether a search wrote its settings into a folder."""
    try:
        return {"classes", "seed"} <= set(settings_of(folder))
    except InputError:
        return False


def _is_alignment(folder: Path) -> bool:
    if not (folder / SETTINGS).is_file():
        return False
    try:
        return {"classes", "refine_rounds", "volumes"} <= set(settings_of(folder))
    except InputError:
        return False


def settings_of(folder: Path) -> dict[str, object]:
    """Read the settings of what was begun or done in a folder."""
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"{folder}: there is no alignment to continue (no {SETTINGS})")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not readable as JSON") from None
    return values if isinstance(values, dict) else {}


# --- how far it has come ----------------------------------------------------------------------


BEFORE = {"klass": "class_index"}
"""Names of version 0.1 in the file of a state, and what they are now."""


def save_state(path: Path, state: State) -> None:
    """Write a state."""
    from safetensors.torch import save

    tensors = {name: part.contiguous() for name, part in state.assignment._asdict().items()}
    tensors |= {"volumes": state.volumes.contiguous(), "fsc": state.fsc.contiguous()}
    raw = save(tensors, {"round": str(state.round)})
    replace_atomically(path, lambda file: file.write(raw), overwrite=True)


def load_state(path: Path) -> State | None:
    """Read a state; None if none was written yet."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            names = {BEFORE.get(name, name): name for name in file.keys()}  # noqa: SIM118
            tensors = {now: file.get_tensor(name) for now, name in names.items()}
            done = int(file.metadata()["round"])
        assignment = Assignment(*(tensors[name] for name in Assignment._fields))
        return State(done, assignment, tensors["volumes"], tensors["fsc"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: damaged, expected the state of an alignment") from None
