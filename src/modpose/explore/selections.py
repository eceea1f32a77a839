"""Named selections of a run, kept as lists of positions in the input, as --index takes them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.table_files import FORMATS, files_of_table
from modpose.errors import InputError, shown
from modpose.files.writing import held, replace_atomically
from modpose.outputs.selected import LISTS, STACK, export_selection
from modpose.run import Run
from modpose.run.files import read_json
from modpose.run.inputs import SELECTIONS
from modpose.run.positions import positions

Mask = NDArray[np.bool_]
ABOUT = "selections.json"


@dataclass(frozen=True)
class Selection:
    """A named choice of images.

    Attributes
    ----------
    name
        Its name, also that of its file.
    how
        How it was made, in words.
    count
        Number of images.
    """

    name: str
    how: str
    count: int


class Selections:
    """The selections of a run, kept in its folder ``selections``.

    ``NAME.npy`` holds the positions of the images in the input, from 0.  ``selections.json`` holds
    how each was made, and the fingerprint of the images that they belong to.

    Parameters
    ----------
    run
        A finished run.

    Raises
    ------
    InputError
        If the selections were made of other images than those of the run.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.folder = run, run.path / SELECTIONS
        self._fingerprint = run.environment.get("fingerprint")
        self._positions: NDArray[np.int64] | None = None
        self._about()

    def all(self) -> list[Selection]:
        """Return the selections, in the order in which they were made."""
        return [Selection(name, *values) for name, values in self._about().items()]

    def mask(self, name: str) -> Mask:
        """Mark the images of a selection, (N,).

        Raises
        ------
        InputError
            If there is no such selection, or its file is not what was written.
        """
        if name not in self._about():
            known = ", ".join(self._about()) or "none"
            raise InputError.of(self.folder, "the selection", shown(name), f"one of: {known}")
        return self._read(name)

    def _read(self, name: str) -> Mask:
        """Mark the images that a list of positions names."""
        path = self._file(name, ".npy")
        try:
            chosen = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            raise InputError(f"{path}: not readable, expected the positions of images") from None
        rows = np.isin(self.positions, chosen)
        if rows.sum() != len(chosen):
            raise InputError(f"{path}: lists images that the run {self.run.path} does not have")
        return rows

    @property
    def positions(self) -> NDArray[np.int64]:
        """(N,) positions of the images of the run in their input."""
        if self._positions is None:
            self._positions = positions(self.run)
        return self._positions

    def save(self, name: str, mask: Mask, how: str) -> Selection:
        """Keep a selection; one of the same name is replaced, and the lists written of it removed.

        Raises
        ------
        InputError
            If the name is no name of a file, no image is selected, or a table or stack of this
            name was written of other images: a run may have been fitted to it.
        """
        path = self._file(name, ".npy")
        saved = Selection(name, how, int(mask.sum()))
        with held(self.run.path):
            same = self._holds(name, mask)
            if not same:
                self._refuse_to_change(name)
            export_selection(self.run, mask, path, overwrite=True)
            if not same:
                for suffix in LISTS:  # runs that were fitted to a list keep a copy of it
                    if suffix != path.suffix:
                        self._file(name, suffix).unlink(missing_ok=True)
            self._keep({**self._about(), name: (how, saved.count)})
        return saved

    def remove(self, name: str) -> None:
        """Forget a selection, and remove its list of positions; what was written of it stays.

        Where that is a table or a stack, the list stays too: it tells what they hold.
        """
        with held(self.run.path):
            about = self._about()
            if about.pop(name, None) is not None:
                self._keep(about)
                if not self._inputs(name):
                    self._file(name, ".npy").unlink(missing_ok=True)

    def write(self, name: str, suffix: str) -> tuple[Path, list[str]]:
        """Write a selection as ``modpose select -o NAME.SUFFIX`` does, beside its positions.

        Returns
        -------
        The file, and sentences about what should be known.
        """
        path = self._file(name, suffix)
        with held(self.run.path):
            mask = self.mask(name)
            if suffix == ".npy":  # it is kept in this file
                return path, []
            return path, export_selection(self.run, mask, path, overwrite=True)

    def _holds(self, name: str, mask: Mask) -> bool:
        """Whether the list of this name holds these images, also if it was removed."""
        try:
            return np.array_equal(self._read(name), mask)
        except InputError:
            return False

    def _inputs(self, name: str) -> list[Path]:
        """Return the files of this name that a run can be fitted to."""
        tables = [self._file(name, suffix) for suffix in (*FORMATS, STACK)]
        written = (path for table in tables for path in files_of_table(table))
        return [path for path in written if path.is_file()]

    def _refuse_to_change(self, name: str) -> None:
        """Refuse other images under a name whose table or stack is there."""
        if found := self._inputs(name):
            raise InputError(
                f"{found[0]}: it was written of other images, and a run may have been fitted to "
                f"it, expected another name than {shown(name)}, or that this file is removed first"
            )

    def _file(self, name: str, suffix: str) -> Path:
        if not NAME.fullmatch(name):
            expected = "letters, digits, spaces, - and _, at most 60"
            raise InputError.of("selections", "the name", shown(name), expected)
        return self.folder / f"{name}{suffix}"

    def _about(self) -> dict[str, tuple[str, int]]:
        """Read how each selection was made, and its count."""
        path = self.folder / ABOUT
        if not path.is_file():
            return {}
        values = read_json(path)
        if values["fingerprint"] != self._fingerprint:
            raise InputError(
                f"{path}: these selections are of other images than the run; move the folder"
            )
        try:
            found = {str(k): (str(how), int(n)) for k, (how, n) in values["selections"].items()}
        except (AttributeError, TypeError, ValueError):
            raise InputError(f"{path}: not readable, expected what modpose explore wrote") from None
        return {name: about for name, about in found.items() if NAME.fullmatch(name)}

    def _keep(self, about: dict[str, tuple[str, int]]) -> None:
        values: dict[str, Any] = {"fingerprint": self._fingerprint, "selections": about}
        text = json.dumps(values, indent=1).encode()
        self.folder.mkdir(exist_ok=True)
        replace_atomically(self.folder / ABOUT, lambda file: file.write(text), overwrite=True)


NAME = re.compile(r"[\w-](?:[\w -]{0,58}[\w-])?")
"""Names that are names of files on every system."""
