"""Writing files completely or not at all; refusing to replace files; natural order."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from modpose.errors import InputError

if sys.platform != "win32":
    import fcntl


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``img2`` comes before ``img10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts if p]


# --- before the work --------------------------------------------------------------------------


def check_outputs(
    files: Iterable[Path], overwrite: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Refuse files that cannot be written, before the work begins.

    Parameters
    ----------
    files
        Files to be written.
    overwrite
        Whether existing files may be replaced.
    inputs
        Files and folders that are read; none of them may be replaced.

    Raises
    ------
    InputError
        If a file already exists, is an input, or is a folder; or if its folder cannot be made.
    """
    files = list(files)
    refuse_to_replace(files, overwrite)
    refuse_input_as_output(files, inputs)
    for path in files:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected the name of a file to write")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir():
            raise InputError(f"{parent}: is a file, expected a folder to write {path.name} to")
        if not os.access(parent, os.W_OK):
            raise InputError(f"{parent}: not writable, expected a folder to write {path.name} to")


def check_space(folder: Path, size: float) -> None:
    """Refuse files of ``size`` bytes, before the work, if the disk of ``folder`` has less space."""
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        found, needed = f"{free / 1e9:.3g} GB", f"{size / 1e9:.3g} GB, for the files"
        raise InputError.of(folder, "the free space of the disk", found, needed)


def refuse_to_replace(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise InputError if one of the files or folders exists and may not be replaced."""
    there = None if overwrite else next((path for path in paths if os.path.lexists(path)), None)
    if there is not None:
        raise InputError(f"{there}: already exists; --overwrite (overwrite=True) replaces it")


IMAGES = re.compile(r"\.(mrcs?|map|ccp4|rec|st|png|jpe?g|tiff?|bmp)$", re.IGNORECASE)
"""Extensions of the files that are read from a folder of images."""


def refuse_input_as_output(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise InputError if writing ``outputs`` would change ``inputs``.

    An output is an input if both are the same file (under any name or link), or if it is an image
    in an input folder.
    """
    outputs = list(outputs)
    there = {_identity(path): path for path in outputs if path.exists()}
    images = [path for path in outputs if IMAGES.search(path.name)]
    if not there and not images:
        return
    for given in inputs:
        with suppress(OSError):
            hit = there.get(_identity(given))
            if hit is not None:
                raise InputError(f"{hit}: is an input of this command, expected another output")
            folder = given.resolve()
            inside = (path for path in images if folder in path.resolve().parents)
            if given.is_dir() and (hit := next(inside, None)) is not None:
                raise InputError(
                    f"{hit}: its folder is an input ({given}), expected an output elsewhere"
                )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


# --- whole or not at all ----------------------------------------------------------------------


def replace_atomically(
    path: Path, write: Callable[[BinaryIO], object], overwrite: bool = False
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    Raises
    ------
    InputError
        If ``path`` already exists and ``overwrite`` is false, or cannot be written; no
        half-written file stays.
    """
    refuse_to_replace([path], overwrite)
    temporary = path.with_name(temporary_name(path.name))
    try:
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch raises its own error after that of the disk
        if cause is None:
            raise
        raise InputError(f"{_final(path)}: not writable ({cause.strerror})") from None


def _final(path: Path) -> Path:
    """Return where a file ends up: a file in the hidden folder of a `Staging` moves out of it."""
    hidden = path.parent.name == temporary_name(STAGING)
    return path.parent.parent / path.name if hidden else path


STAGING = "modpose"
"""Name of the hidden folders, before the part that tells their process."""


class Staging:
    """Files that are written to hidden folders, and moved into place together at the end.

    Call it with the final path of a file; it returns the path to write to.  Files are moved in
    the order of these calls, so the last call should be for the file that readers open first.
    """

    def __init__(self) -> None:
        self._temporary: dict[Path, Path] = {}
        self._folders: dict[Path, Path] = {}
        self._made: list[Path] = []
        self._obsolete: list[Path] = []

    def __call__(self, path: Path) -> Path:
        """Return where to write the file that will be ``path``."""
        path = path.absolute()
        if path.parent not in self._folders:
            self._folders[path.parent] = self._hidden_folder(path.parent)
        self._temporary[path] = self._folders[path.parent] / path.name
        return self._temporary[path]

    @property
    def newest(self) -> Path:
        """The final path of the last call."""
        return next(reversed(self._temporary), Path())

    def remove(self, path: Path) -> None:
        """At the end, remove a file of an earlier command unless it is replaced."""
        self._obsolete.append(path.absolute())

    def _hidden_folder(self, folder: Path) -> Path:
        try:
            for parent in [*reversed(folder.parents), folder]:
                if not parent.exists():
                    parent.mkdir()
                    self._made.append(parent)
            remove_dead_leftovers(folder)
            hidden = folder / temporary_name(STAGING)
            hidden.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: not a folder to write to ({error.strerror})") from None
        return hidden

    def commit(self) -> None:
        """Move everything into place; if one move fails, undo the earlier ones."""
        for temporary in self._temporary.values():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        with ExitStack() as locks:
            for folder in sorted({path.parent for path in (*self._temporary, *self._obsolete)}):
                locks.enter_context(held(folder))
            self._move()

    def _move(self) -> None:
        saved: dict[Path, Path] = {}
        moved: list[Path] = []
        obsolete = [path for path in self._obsolete if path not in self._temporary]
        try:
            # The last file is moved away first: without it readers see that the set is incomplete.
            for path in [*reversed(self._temporary), *obsolete]:
                if os.path.lexists(path):
                    backup = self._backup(path)
                    path.replace(backup)
                    saved[path] = backup
            for path, temporary in self._temporary.items():
                temporary.replace(path)
                moved.append(path)
        except BaseException:
            for path in moved:
                path.unlink(missing_ok=True)
            for path, backup in saved.items():
                backup.replace(path)
            raise

    def _backup(self, path: Path) -> Path:
        if path.parent not in self._folders:
            self._folders[path.parent] = self._hidden_folder(path.parent)
        folder = self._folders[path.parent] / ".replaced"
        folder.mkdir(exist_ok=True)
        return folder / path.name

    def close(self) -> None:
        """Remove temporary files, and new folders that stayed empty."""
        for hidden in self._folders.values():
            shutil.rmtree(hidden, ignore_errors=True)
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make others wait that hold the same folder: threads and processes, if the disk has locks."""
    if sys.platform == "win32" or not folder.is_dir():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def all_or_nothing() -> Iterator[Staging]:
    """Write several files: afterwards all of them are in place, or none.

    Examples
    --------
    >>> with all_or_nothing() as place:  # doctest: +SKIP
    ...     write_mrcs(place(out / "map.mrc"), volume, 1.5)
    ...     write_star(place(out / "particles.star"), table)
    """
    staging = Staging()
    try:
        yield staging
        staging.commit()
    except OSError as error:
        raise InputError(f"{staging.newest}: not writable ({error.strerror})") from None
    finally:
        staging.close()


# --- what a killed process leaves -------------------------------------------------------------


def temporary_name(name: str) -> str:
    """Name a temporary file after its process, so that others can see when it is obsolete."""
    return f".{name[:100]}.{os.getpid()}@{_host()}.part"


def remove_dead_leftovers(folder: Path) -> None:
    """Remove temporary files and folders in ``folder`` whose process on this machine has ended."""
    for entry in os.scandir(folder) if folder.is_dir() else ():
        match = re.fullmatch(r"\..+\.(\d{1,10})(?:@(.*))?\.part", entry.name)
        if match is None or match[2] not in (None, _host()) or is_alive(int(match[1])):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with suppress(OSError):
                Path(entry.path).unlink()


def holds_files(folder: Path) -> bool:
    """Return whether a folder has other files than hidden leftovers of processes."""
    return any(not path.name.startswith(".") for path in folder.iterdir())


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:60]
