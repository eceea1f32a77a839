"""How far a search has come: saved at most half a minute back, so that it can go on later.

An interrupted search leaves ``unfinished/`` in its folder: ``settings.json`` and a file for each
random start and for the refinement.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from modpose.errors import InputError
from modpose.files.locks import writing
from modpose.files.writing import remove_dead_leftovers, replace_atomically
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.folder import SETTINGS, UNFINISHED, check_settings, settings_of

EVERY = 30.0
"""Seconds between two saved states of a step."""


class Saved:
    """The state of one step of a search: named tensors in a file.

    Parameters
    ----------
    path
        The file; None to save nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._last = path, time.monotonic()

    def read(self) -> dict[str, Tensor]:
        """Return what was saved last; empty if nothing was."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if self._path is None or not self._path.is_file():
            return {}
        try:
            return load(self._path.read_bytes())
        except (SafetensorError, OSError, ValueError):
            raise InputError(f"{self._path}: damaged, expected the state of a search") from None

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        return self._path is not None and time.monotonic() - self._last >= EVERY

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Replace what was saved."""
        from safetensors.torch import save

        if self._path is None:
            return
        apart = {name: value.clone().contiguous() for name, value in values.items()}
        raw = save(apart)
        replace_atomically(self._path, lambda file: file.write(raw), overwrite=True)
        self._last = time.monotonic()


def is_unfinished(folder: Path) -> bool:
    """Return whether there is an interrupted search in a folder."""
    return (folder / UNFINISHED / SETTINGS).is_file()


def begun_settings(folder: Path) -> AbInitioSettings:
    """Return what an interrupted search in a folder was asked for."""
    stored: dict[str, Any] = settings_of(folder / UNFINISHED)
    known = {one.name for one in fields(AbInitioSettings)} & set(stored)
    return AbInitioSettings(**{name: stored[name] for name in known})


def check_unfinished(
    folder: Path, wanted: dict[str, object], overwrite: bool, resume: bool
) -> None:
    """Refuse to go on with other settings or images, and to forget an interrupted search unasked.

    Parameters
    ----------
    folder
        Of the results.
    wanted
        Settings, and what identifies the images.
    overwrite
        Whether an interrupted search may be forgotten.
    resume
        Whether to go on with it.
    """
    begun = is_unfinished(folder)
    if resume and not begun:
        raise InputError(f"{folder}: there is no interrupted search to go on with")
    if resume:
        changed = dict.fromkeys(
            ("fingerprint", "halves"), "the images or their half sets are not those of the start"
        )
        changed["ctf"] = "the CTF is not that of the start"
        changed["start_map"] = "the map to start from is not that of the start"
        check_settings(folder / UNFINISHED, wanted, changed)
    elif begun and not overwrite:
        raise InputError(
            f"{folder}: an interrupted search is here; --resume goes on with it, --overwrite "
            "starts again"
        )


class Unfinished:
    """The steps of a search that is going on.

    Parameters
    ----------
    folder
        Of their states; None to save nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def step(self, name: str) -> Saved:
        """Return where a step is saved."""
        return Saved(None if self._folder is None else self._folder / f"{name}.safetensors")


NOT_SAVED = Unfinished()


@contextmanager
def unfinished_in(
    folder: Path | None, wanted: dict[str, object], resume: bool
) -> Iterator[Unfinished]:
    """Save the steps of a search within this context; at its end, remove what was saved.

    Parameters
    ----------
    folder
        Of the results; None to save nothing.
    wanted
        Settings, and what identifies the images.
    resume
        Whether to go on with what is there; else it is removed first.
    """
    if folder is None:
        yield NOT_SAVED
        return
    work = folder / UNFINISHED
    work.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        remove_dead_leftovers(work)
        if not resume:
            _clear(work)
            text = (json.dumps(wanted, indent=2) + "\n").encode()
            replace_atomically(work / SETTINGS, lambda file: file.write(text), overwrite=True)
        yield Unfinished(work)
        _clear(work)
        if not any(work.iterdir()):
            work.rmdir()


def _clear(work: Path) -> None:
    """Remove the states of a search; files of others stay."""
    for path in (work / SETTINGS, *work.glob("*.safetensors")):
        path.unlink(missing_ok=True)
