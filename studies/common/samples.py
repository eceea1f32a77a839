"""Images of a study on disk: those that fits see, and those held out from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.source import Source, open_source
from modpose.errors import InputError
from modpose.files.writing import replace_atomically

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sample:
    """Images of a study: those that fits see, and those held out from fits altogether.

    Attributes
    ----------
    name
        What tables call it.
    source
        What :func:`modpose.data.source.open_source` opens.
    train, test
        Index files (.npy) of the two parts.
    description
        A sentence: what the images are, how many, how large.
    truth
        CSV with one row per image of the source, where the truth is known.
    """

    name: str
    source: str
    train: Path
    test: Path
    description: str
    truth: Path | None = None

    def open_train(self) -> Source:
        """Open the images that fits see."""
        return open_source(self.source, index=self.train)

    def open_test(self) -> Source:
        """Open the held-out images."""
        return open_source(self.source, index=self.test)

    def truth_of_train(self) -> pd.DataFrame:
        """Read what is true of the images that fits see, in their order."""
        return self._truth(self.train)

    def truth_of_test(self) -> pd.DataFrame:
        """Read what is true of the held-out images, in their order."""
        return self._truth(self.test)

    def _truth(self, index: Path) -> pd.DataFrame:
        import pandas as pd

        if self.truth is None:
            raise InputError(f"{self.name}: nothing is known of the truth")
        table: pd.DataFrame = pd.read_csv(self.truth).iloc[np.load(index)]
        return table.reset_index(drop=True)


Made = tuple[NDArray[Any], int, "pd.DataFrame | None"]
"""Images, how many of them, at the end, are held out, and the truth."""


def sample_once(folder: Path, name: str, description: str, make: Callable[[], Made]) -> Sample:
    """Make a sample, or open it where the experiment made it before."""
    own = folder / name
    train, test, truth = own / "train.npy", own / "test.npy", own / "truth.csv"
    if test.is_file():  # written last
        known = truth if truth.is_file() else None
        return Sample(name, str(own / "images.npy"), train, test, description, known)
    images, n_test, table = make()
    return write_sample(folder, name, description, images, n_test, table)


def write_sample(
    folder: Path,
    name: str,
    description: str,
    images: NDArray[Any],
    n_test: int,
    truth: pd.DataFrame | None = None,
) -> Sample:
    """Keep images in a folder as a sample whose last ``n_test`` are held out.

    Parameters
    ----------
    folder
        Of the experiment's data.
    name, description
        Of the sample.
    images
        (N, H, W) or (N, H, W, 3).
    n_test
        Number held out.
    truth
        One row per image.
    """
    stack = folder / name / "images.npy"
    save_array(stack, images)
    of_truth = None
    if truth is not None:
        of_truth = folder / name / "truth.csv"
        text = truth.to_csv(index=False).encode()
        replace_atomically(of_truth, lambda file: file.write(text), overwrite=True)
    train, test = np.split(np.arange(len(images)), [len(images) - n_test])
    return index_sample(folder, name, description, str(stack), train, test, of_truth)


def index_sample(
    folder: Path,
    name: str,
    description: str,
    source: str,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    truth: Path | None = None,
) -> Sample:
    """Make a sample of rows of a source; parameters as in :class:`Sample`."""
    of_train, of_test = folder / name / "train.npy", folder / name / "test.npy"
    save_array(of_train, train.astype(np.int64))
    save_array(of_test, test.astype(np.int64))
    return Sample(name, source, of_train, of_test, description, truth)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as NPY, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, lambda file: np.save(file, array), overwrite=True)
