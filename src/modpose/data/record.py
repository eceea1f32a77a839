"""A run's record of its images, row by row, to recognise them later.

Tables are re-sorted, stacks are rewritten, files move.  A run records the identity of each image,
the numbers that the model used (CTF, pose, tilts), and the checksums of up to 256 images.  So it
finds its images again in any order, and refuses others.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.identity import (
    EXACT_FLOAT,
    RowIdentity,
    identities_of,
)
from modpose.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.data.particles import Particles
    from modpose.data.source import Source
    from modpose.data.stack import Stack
    from modpose.data.wedges import Wedges

logger = logging.getLogger("modpose")

Ints = NDArray[np.int64]

SAMPLED = 256
"""Number of images, spread over the stack, with a checksum of their pixels."""
SAMPLED_BYTES = 2**28
"""Bytes to read; of larger images fewer are read, but at least ``LEAST_SAMPLED``."""
LEAST_SAMPLED = 16
WHOLE_BYTES = 2**24
"""All images of a stack below this size get a checksum."""
CHUNK_BYTES = 2**26
MASKS = 16
"""Number of wedge masks that are recorded, by their mean and three projections."""
MEANING = re.compile(
    r"rln(Ctf|BeamTilt|OddZernike|EvenZernike|MagMat|Magnification|Voltage|Spherical|Amplitude)"
    r"|rlnDefocus|rlnPhaseShift|rlnTomo(Visible|Name|Subtomogram|TiltSeriesPixel)|modposeTilt"
    r"|rln(Image|Detector)?PixelSize|ctf/|blob/(sign|psize)"
)
"""Columns that change the meaning of pixels."""


@dataclass(frozen=True)
class Record:
    """The images of a fit.

    Attributes
    ----------
    rows
        One row per image, in the order of the run: ``row`` (position in the whole input), ``uid``
        and ``name`` with their ``_occurrence`` if the input has them, ``file_bytes``, ``sampled``,
        ``pixels`` (checksum if sampled), and the numbers that the model used: ``ctf_0`` ...,
        ``rotation_0`` ..., and so on (see :func:`used_of`).
    about
        ``kind`` of the names, ``bare`` (the images came without a table), ``whole`` (rows of the
        whole input), ``columns`` (name of each column of the table and its checksum), ``labels``
        (the column of classes, or None).
    """

    rows: pd.DataFrame
    about: dict[str, Any]

    @classmethod
    def of(cls, rows: pd.DataFrame, about: dict[str, Any], path: Path) -> Record:
        """Check the table read from ``path``.

        Raises
        ------
        InputError
            If a column is missing or has other values than a fit writes.
        """
        names = [name for name in ("uid", "name") if name in rows]
        whole = ("row", "file_bytes", "pixels", *(f"{name}_occurrence" for name in names))
        for name in (*whole, "sampled"):
            kinds = "b" if name == "sampled" else "iu"
            if name not in rows or rows[name].dtype.kind not in kinds:
                raise InputError(f"{path}: its column {name} is not what a fit writes")
        used = [str(c) for c in rows if re.fullmatch(r"\w+_\d+", str(c))]
        strange = [name for name in used if rows[name].dtype.kind not in "iuf"]
        if strange or ("uid" in names and rows["uid"].dtype.kind not in "iu"):
            raise InputError(f"{path}: its column {(*strange, 'uid')[0]} holds no numbers")
        return cls(rows, about)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.rows)

    def identities(self) -> tuple[RowIdentity, ...]:
        """Return the identities of the images."""
        kinds = {"uid": "uid", "name": self.about["kind"]}
        return tuple(
            RowIdentity(
                kind, self.rows[column].to_numpy(), self.rows[f"{column}_occurrence"].to_numpy()
            )
            for column, kind in kinds.items()
            if column in self.rows
        )

    def used(self, name: str) -> NDArray[np.float32] | None:
        """Return the numbers with that name, (N, k); None if the model used none."""
        columns = [str(c) for c in self.rows if re.fullmatch(rf"{name}_\d+", str(c))]
        return self.rows[columns].to_numpy(np.float32) if columns else None


def record_of(dataset: Dataset, labels: str | None = None) -> Record:
    """Record the images of a fit; ``labels`` is the column of the classes."""
    import pandas as pd

    source = dataset.source
    whole = source.all_particles
    columns: dict[str, Any] = {"row": _selection(source)}
    kind = None
    for identity in identities_of(whole):
        mine = identity.subset(columns["row"])
        name = "uid" if identity.kind == "uid" else "name"
        kind = kind if name == "uid" else identity.kind
        columns |= {name: mine.key, f"{name}_occurrence": mine.occurrence}
    columns["file_bytes"] = source.stack.sizes()
    rows = pd.DataFrame(columns)
    sample = sampled(source.stack)
    rows["sampled"] = np.isin(np.arange(source.n), sample)
    rows["pixels"] = np.zeros(source.n, np.uint64)
    rows.loc[sample, "pixels"] = pixel_sums(source.stack, sample)
    used = {
        f"{name}_{k}": column
        for name, values in used_of(dataset).items()
        for k, column in enumerate(values.T)
    }
    rows = pd.concat([rows, pd.DataFrame(used)], axis=1)
    about = {
        "kind": kind,
        "bare": whole.format == "none",
        "whole": whole.n,
        "pixel_size": dataset.pixel_size,
        "columns": column_sums(source.particles),
        "labels": labels,
    }
    return Record(rows, about)


def described(record: Record, source: Source) -> dict[str, Any]:
    """Collect the entries of ``environment.json`` about the images."""
    return {
        "fingerprint": fingerprint(record),
        "images": image_fingerprint(source.stack),
        "data": record.about,
        "stored_shape": list(source.stack.shape),
    }


def fingerprint(record: Record) -> str:
    """Hash the whole record; begins with ``2-``, the version of the hash."""
    digest = hashlib.sha256(repr(sorted(record.about["columns"].items())).encode())
    for name in record.rows:
        digest.update(f"{name}".encode())
        digest.update(_column_bytes(record.rows[name].to_numpy()))
    return f"2-{digest.hexdigest()}"


def _selection(source: Source) -> Ints:
    return np.arange(source.n) if source.selection is None else source.selection


def used_of(dataset: Dataset) -> dict[str, NDArray[np.float32]]:
    """Collect the numbers besides pixels that the model uses of each image, (N, k) each."""
    wedges, undone = dataset.wedges, dataset.restoration
    masks = wedges is not None and wedges.tilt_range is None
    parts = {
        "ctf": dataset.ctf,
        "rotation": dataset.rotation,
        "shift": dataset.translation,
        "tilt": None if wedges is None else wedges.tilt_range,
        "mask": _mask_signatures(wedges) if wedges is not None and masks else None,
        "sign": undone.sign,
        "odd": undone.odd,
        "multiplied": undone.params,
    }
    return {
        name: np.asarray(values, np.float32).reshape(dataset.n, -1)
        for name, values in parts.items()
        if values is not None
    }


def _mask_signatures(wedges: Wedges) -> NDArray[np.float64]:
    """Return the mean and three projections of a few masks, (N, 4); NaN for the others."""
    rows = np.unique(np.linspace(0, wedges.n - 1, min(wedges.n, MASKS)).astype(np.int64))
    masks = wedges.read(rows).reshape(len(rows), -1).astype(np.float64)
    signatures = np.full((wedges.n, 4), np.nan)
    patterns = np.random.default_rng(0).uniform(-1, 1, (4, masks.shape[1]))
    patterns[0] = 1
    signatures[rows] = masks @ patterns.T / masks.shape[1]
    return signatures


def sampled(stack: Stack) -> Ints:
    """Choose images, evenly spread: all of a small stack, else up to 256."""
    size = 4 * stack.channels * int(np.prod(stack.shape))
    if stack.n * size <= WHOLE_BYTES:
        return np.arange(stack.n)
    count = min(stack.n, SAMPLED, max(LEAST_SAMPLED, SAMPLED_BYTES // size))
    return np.unique(np.linspace(0, stack.n - 1, count).astype(np.int64))


def pixel_sums(stack: Stack, rows: Ints) -> NDArray[np.uint64]:
    """Return a checksum of each of these images."""
    size = 4 * stack.channels * int(np.prod(stack.shape))
    step = max(1, CHUNK_BYTES // size)
    sums = np.empty(len(rows), np.uint64)
    for first in range(0, len(rows), step):
        for k, image in enumerate(stack.read(rows[first : first + step]), first):
            digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8)
            sums[k] = int.from_bytes(digest.digest(), "little")
    return sums


def image_fingerprint(stack: Stack) -> str:
    """Hash the number of images, their shape, and the sampled images, in order."""
    digest = hashlib.sha256(repr((stack.n, stack.shape, stack.channels)).encode())
    digest.update(pixel_sums(stack, sampled(stack)).tobytes())
    return f"2-{digest.hexdigest()}"


def source_fingerprint(source: Source) -> str:
    """Hash images, in order, and the columns of their table that change the meaning of pixels."""
    digest = hashlib.sha256(image_fingerprint(source.stack).encode())
    digest.update(source.stack.sizes().tobytes())
    sums = column_sums(source.particles)
    digest.update(repr(sorted(pair for pair in sums.items() if MEANING.match(pair[0]))).encode())
    return f"2-{digest.hexdigest()}"


def given_ctf_sum(source: Source) -> str | None:
    """Return a checksum of the CTF that came in a file of its own; None where none did."""
    given = source.particles.given_ctf
    return None if given is None else hashlib.sha256(given.tobytes()).hexdigest()


def column_sums(particles: Particles) -> dict[str, str]:
    """Return a checksum of every column of a table, those of the optics groups by particle."""
    names = [str(name) for name in particles.table.columns]
    if particles.optics is not None:
        names += [str(name) for name in particles.optics.columns if str(name) not in names]
    return {
        name: hashlib.blake2b(_column_bytes(particles.column(name)), digest_size=8).hexdigest()
        for name in names
    }


def _column_bytes(values: NDArray[Any]) -> bytes:
    if values.dtype.kind in "biuf":
        exact = values.astype(np.float64)  # whole numbers are written with and without decimals
        large = values.dtype.kind in "iu" and bool((np.abs(exact) >= EXACT_FLOAT).any())
        return (values if large else exact).tobytes()
    return "\0".join(map(str, values.tolist())).encode("utf-8", "surrogatepass")
