"""Locks: one process at a time writes to a folder; readers do not wait."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modpose.errors import InputError
from modpose.files.writing import is_alive

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""Name of the lock file in the folder."""
UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""Errors of disks without file locks."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which must exist, within this context.

    The operating system releases the lock of a process that dies.  On disks without such locks the
    file names the process, and is ignored after that process has ended.

    Raises
    ------
    InputError
        If another process holds the lock, or the folder cannot be written to.
    """
    path = folder / LOCK
    try:
        handle = _locked(path)
    except OSError as error:
        raise InputError(f"{folder}: not writable ({error.strerror})") from None
    try:
        yield
    finally:
        with suppress(OSError):  # no other process removes or replaces it in the meantime
            path.unlink()
        os.close(handle)


def _locked(path: Path) -> int:
    """Lock the file and return its descriptor, which holds the lock until it is closed."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if not _system_lock(handle, path):
                _named_lock(handle, path)
            if _is_same(handle, path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, _about_us().encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last owner removed the file after this process had opened it


def _system_lock(handle: int, path: Path) -> bool:
    """Ask the operating system for the lock; False if this disk has no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(path, _owner(handle)) from None
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def _named_lock(handle: int, path: Path) -> None:
    """Refuse a lock file that names a process which may be alive.

    Two processes that find the lock free at the same moment could both take it.  So each writes
    its name into the file and checks that its name stays there.
    """
    owner = _owner(handle)
    here = owner.get("host") == socket.gethostname()
    if owner and owner != json.loads(_about_us()):
        pid = owner.get("pid")
        if not (here and isinstance(pid, int) and not _is_same_process(pid, owner.get("born"))):
            raise _taken(path, owner)
    os.ftruncate(handle, 0)
    os.pwrite(handle, _about_us().encode(), 0)
    os.fsync(handle)
    if _owner(handle) != json.loads(_about_us()):
        raise _taken(path, _owner(handle))


def _is_same_process(pid: int, born: object) -> bool:
    """Return whether the process is alive and started at that time (numbers are reused)."""
    return is_alive(pid) and (born is None or _born(pid) in (None, born))


def _born(pid: int) -> str | None:
    """Return when a process was started, in ticks of the system; None if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _about_us() -> str:
    pid = os.getpid()
    return json.dumps({"pid": pid, "host": socket.gethostname(), "born": _born(pid)})


def _owner(handle: int) -> dict[str, object]:
    try:
        values = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _is_same(handle: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def _taken(path: Path, owner: dict[str, object]) -> InputError:
    who = f" (process {owner['pid']} on {owner.get('host')})" if "pid" in owner else ""
    away = bool(owner) and owner.get("host") != socket.gethostname()
    remedy = f"; if that process is gone, remove {path}" if away else ""
    return InputError(f"{path.parent}: another process writes to this folder{who}{remedy}")
