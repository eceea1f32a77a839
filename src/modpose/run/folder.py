"""The folder of a run: its marker, the files that may be deleted, and its replacement in one step.

A finished run is never changed in place.  Its replacement is written into ``RUN/.new``, a separate
run folder, and moved into place when it is finished.  If the process is killed before that, the
old run is unchanged, and ``resume`` continues the run in ``.new``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modpose.errors import InputError
from modpose.files.locks import LOCK, writing
from modpose.files.marker import MARKER, is_run
from modpose.files.reading import regular_file
from modpose.files.writing import remove_dead_leftovers, replace_atomically
from modpose.run.files import read_json
from modpose.run.report_files import files_of_report

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Version of the folder's format; a larger one in a marker is of a newer modpose."""
NEW = ".new"
"""Folder inside a run for its replacement."""
READY = "ready.json"
"""In ``.new``: lists the files that are to be moved into place."""
REPORT = "report"
SEARCH = "abinitio"
"""Folder of what was found where images came without poses."""
ADDED = "added.parquet"
"""Columns added after the fit (:mod:`modpose.run.added`)."""
CONTENT_MAPS = "content_maps.safetensors"
"""Sharp maps of content, computed after the fit (:mod:`modpose.content_maps`)."""
CHECKED = ("checkpoints/best.safetensors", "latents.parquet", "rows.parquet")
"""Files whose checksums the marker holds: they belong together."""
FILES = (
    MARKER,
    "config.yaml",
    "environment.json",
    "rows.parquet",
    "metrics.jsonl",
    "affinity.csv",
    "sample_affinity.npy",
    "latents.parquet",
    ADDED,
    CONTENT_MAPS,
)
CHECKPOINT = re.compile(
    r"best\.safetensors|epoch-\d+(-\d+)?\.(safetensors|state)|rest-\d+\.parquet"
)
SEARCHED = re.compile(
    r"(class\d{3}(_sharpened|_half[12]|_mask)?\.mrc|fsc\.(csv|png)|particles\.(star|cs)"
    r"|(kept|better)_poses\.safetensors|(unfinished/)?settings\.json|unfinished/\w+\.safetensors)"
)
LEFTOVER = re.compile(r"\.(?P<name>.+)\.\d+(@[^/]*)?\.part")
LONGEST_WAIT = 10.0
"""Seconds that a reader waits for another process to finish replacing a run."""


# --- how a run is known -----------------------------------------------------------------------


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Read the marker file; None if there is none.

    Raises
    ------
    InputError
        If it cannot be read, or is of a newer format than this version knows.
    """
    path = folder / MARKER
    if not path.is_file():
        return None
    values = read_json(path)
    version = values.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError.of(path, "the format", repr(version)[:40], f"a number from 1 to {FORMAT}")
    if version > FORMAT:
        raise InputError(
            f"{folder}: the run is of format {version}, but this version of modpose reads formats "
            f"up to {FORMAT}; use the newer version that wrote it"
        )
    return values


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file of a run (some columns), or say in a sentence what is wrong."""
    from pyarrow import parquet

    regular_file(path)
    try:
        table = parquet.read_table(path, columns=columns)
        table.validate(full=True)
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        return frame
    except Exception:  # a damaged file makes pyarrow and pandas fail in any way
        raise InputError(f"{path}: not readable as Parquet") from None


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that no run can be written to; nothing is changed.

    Raises
    ------
    InputError
        If it is a file, holds something that is no run, or a run that may not be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file stands where the run folder should go")
    if not folder.is_dir() or not _entries(folder):
        return
    read_marker(folder)  # refuses one of a newer version
    if not is_run(folder):
        raise InputError(f"{folder}: the folder is not empty and is no modpose run")
    if not overwrite and (folder / "config.yaml").is_file():
        raise InputError(
            f"{folder}: a run already exists here; give another -o, or --overwrite to "
            "replace it, or --resume to continue it"
        )


def _entries(folder: Path) -> list[str]:
    """Name what a folder holds, apart from the lock and what killed processes left."""
    return [p.name for p in folder.iterdir() if p.name != LOCK and not LEFTOVER.fullmatch(p.name)]


def check_not_an_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output folder that is, holds or lies in something that is read.

    Raises
    ------
    InputError
        If an input is the folder or lies in it, or the folder lies in an input folder.
    """
    target = out.resolve()
    resolved: dict[Path, Path] = {}  # many images lie in few folders
    for given in inputs:
        folder = given.parent
        if folder not in resolved:
            resolved[folder] = folder.resolve()
        path = given.resolve() if given.is_symlink() else resolved[folder] / given.name
        if path == target or target in path.parents:
            where = "is" if path == target else "lies in"
            raise InputError(
                f"{out}: the input {given} {where} this folder, expected another output (-o)"
            )
        if path in target.parents and path.is_dir():
            raise InputError(
                f"{out}: the folder lies in the input {given}, expected an output (-o) elsewhere"
            )


# --- what belongs to a run --------------------------------------------------------------------


def own_files(folder: Path) -> Iterator[str]:
    """Yield the files of a run in its folder, as ``checkpoints/best.safetensors``.

    Nothing else is ever deleted or replaced.
    """
    for name in FILES:
        if (folder / name).is_file():
            yield name
    for part in ("checkpoints", SEARCH):
        for path in sorted((folder / part).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if _is_own(name) and path.is_file():
                yield name


def clear(folder: Path, keep: Iterable[str] = ()) -> None:
    """Delete the files of a run, and its report; other files stay."""
    kept = set(keep)
    for name in list(own_files(folder)):
        if name not in kept:
            (folder / name).unlink(missing_ok=True)
    _clear_report(folder / REPORT)
    for part in ("checkpoints", f"{SEARCH}/unfinished", SEARCH):
        with suppress(OSError):
            if not kept or part != "checkpoints":
                (folder / part).rmdir()


def _clear_report(folder: Path) -> None:
    """Delete what a report wrote."""
    for path in files_of_report(folder) or ():
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half-written; the caller holds the lock."""
    if (folder / NEW).is_dir() and not (folder / NEW / MARKER).is_file():
        shutil.rmtree(folder / NEW, ignore_errors=True)
    remove_dead_leftovers(folder)
    for path in folder.glob(".report-????????"):  # of a report that version 0.1 was killed in
        if {child.name for child in path.iterdir()} <= {REPORT} and (folder / REPORT).is_dir():
            shutil.rmtree(path, ignore_errors=True)
    ours = {*FILES, READY}
    for place in (folder, folder / "checkpoints", folder / NEW, folder / NEW / "checkpoints"):
        for path in list(place.iterdir()) if place.is_dir() else []:
            left = LEFTOVER.fullmatch(path.name)
            if left and (left["name"] in ours or CHECKPOINT.fullmatch(left["name"])):
                path.unlink(missing_ok=True)


# --- replacing in one step --------------------------------------------------------------------


def stage_copy(folder: Path) -> Path:
    """Copy a finished run, without its results, into ``.new`` to continue it there."""
    place = fresh_stage(folder)
    (place / "checkpoints").mkdir()
    for name in own_files(folder):
        if name in (MARKER, "latents.parquet", ADDED, CONTENT_MAPS):
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        try:  # files are replaced, never changed, so that both folders can share them
            os.link(folder / name, place / name)
        except OSError:
            shutil.copy2(folder / name, place / name)
    write_marker(place, {})
    return place


def fresh_stage(folder: Path) -> Path:
    """Make an empty ``.new``."""
    place = folder / NEW
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def staged(folder: Path) -> Path | None:
    """Return the folder of the replacement of a run, if one was begun."""
    place = folder / NEW
    whole = all((place / name).is_file() for name in (MARKER, "config.yaml", "environment.json"))
    return place if whole else None


def put_in_place(folder: Path) -> None:
    """Replace a run by the one in ``.new``, which is finished; the caller holds the lock."""
    place = folder / NEW
    names = sorted(own_files(place), key=lambda name: name == MARKER)
    text = json.dumps(names).encode()
    replace_atomically(place / READY, lambda file: file.write(text), overwrite=True)
    _move(folder)


def finish_replacing(folder: Path) -> None:
    """Finish the replacement of a run if a process was killed during it.

    Raises
    ------
    InputError
        If another process is doing so and does not come to an end.
    """
    ready = folder / NEW / READY
    deadline = time.monotonic() + LONGEST_WAIT
    while ready.is_file():
        try:
            with writing(folder):
                if ready.is_file():
                    _move(folder)
        except InputError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _move(folder: Path) -> None:
    """Move the listed files; after a kill it can be repeated with the same result."""
    place = folder / NEW
    try:
        names = [name for name in _listed(place / READY) if _is_own(name)]
        clear(folder, keep=names)
        (folder / "checkpoints").mkdir(exist_ok=True)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # moved already
                (place / name).replace(folder / name)
        shutil.rmtree(place)
    except OSError as error:
        raise InputError(f"{folder}: not writable ({error.strerror})") from None


def _listed(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text())
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: not readable as a list of files")
    return names


def _is_own(name: str) -> bool:
    part, _, rest = name.partition("/")
    kinds = {"checkpoints": CHECKPOINT, SEARCH: SEARCHED}
    return name in FILES or (part in kinds and bool(kinds[part].fullmatch(rest)))


# --- checksums --------------------------------------------------------------------------------


def write_marker(folder: Path, checksums: dict[str, str]) -> None:
    """Write the marker file in one step."""
    values: dict[str, Any] = {"format": FORMAT}
    if checksums:
        values["sha256"] = checksums
    text = (json.dumps(values, indent=2) + "\n").encode()
    replace_atomically(folder / MARKER, lambda file: file.write(text), overwrite=True)


def seal(folder: Path) -> None:
    """Record in the marker that weights and latents belong together: the run is finished."""
    present = [name for name in CHECKED if (folder / name).is_file()]
    write_marker(folder, {name: sha256(folder / name) for name in present})


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sums(folder: Path) -> None:
    """Check weights and latents against the marker; a run of version 0.1 has no checksums.

    Raises
    ------
    InputError
        If a file is missing or another than the one that the fit wrote.
    """
    sums = (read_marker(folder) or {}).get("sha256", {})
    for name, expected in sums.items() if isinstance(sums, dict) else ():
        if name not in CHECKED:
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: the file is missing, expected what the fit wrote")
        if sha256(path) != expected:
            raise InputError(
                f"{path}: the file was changed or damaged after the fit (its checksum differs), "
                "expected what the fit wrote; fit again, or bring back a copy"
            )
