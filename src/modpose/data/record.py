"""What a run remembers of its images, row by row, and whether a set opened later is the same.

Tables are re-sorted, stacks are written anew, files move.  A run knows each of its images by what
names it, keeps what the model used of it (CTF, pose, tilts), and the checksum of up to 256 images.
So it finds its images again in any order, and refuses others.
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
    IMAGE_COLUMNS,
    RowIdentity,
    common_identity,
    identities_of,
    match_rows,
)
from modpose.errors import InputError
from modpose.observe.ctf import CtfColumn

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.data.particles import Particles
    from modpose.data.source import Source
    from modpose.data.stack import Stack

logger = logging.getLogger("modpose")

Ints = NDArray[np.int64]

SAMPLED = 256
"""Images, spread over the stack, whose pixels are remembered."""
SAMPLED_BYTES = 2**28
"""Of larger ones fewer are read, but at least ``LEAST_SAMPLED``."""
LEAST_SAMPLED = 16
WHOLE_BYTES = 2**24
"""Of a stack below this size every image is remembered."""
CHUNK_BYTES = 2**26
SAME = {"ctf": (1e-5, 1e-4), "rotation": (0.0, 1e-5), "shift": (0.0, 1e-3), "tilt": (0.0, 1e-3)}
"""Relative and absolute tolerance within which numbers are the same on another machine."""
NAMING = (*IMAGE_COLUMNS, "uid", "blob/path", "blob/idx", "folder")
"""Columns by which images are found."""
MEANING = re.compile(
    r"rln(Ctf|BeamTilt|OddZernike|EvenZernike|MagMat|Magnification|Voltage|Spherical|Amplitude)"
    r"|rlnDefocus|rlnPhaseShift|rlnTomo(Visible|Name|Subtomogram|TiltSeriesPixel)|modposeTilt"
    r"|rln(Image|Detector)?PixelSize|ctf/|blob/(sign|psize)"
)
"""Columns that change what pixels mean."""
WORDS = {"ctf": "the CTF", "rotation": "the rotation", "shift": "the shift", "tilt": "the tilts"}


@dataclass(frozen=True)
class Record:
    """The images of a fit.

    Attributes
    ----------
    rows
        A row an image, in the order of the run: ``row`` (position in the whole input), ``uid`` and
        ``name`` with their ``_occurrence`` where the input has such, ``file_bytes``, ``pixels``
        (checksum; NA where it was not sampled), and what the model used: ``ctf_0`` ...,
        ``rotation_0`` ..., ``shift_0`` ..., ``tilt_0`` ....
    about
        ``kind`` of the names, ``bare`` (the images came without a table), ``whole`` (rows of the
        whole input), ``columns`` (name of each column of the table and its checksum), ``labels``
        (the column of classes, or None).
    """

    rows: pd.DataFrame
    about: dict[str, Any]

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.rows)

    def identities(self) -> tuple[RowIdentity, ...]:
        """Say what identified the images."""
        kinds = {"uid": "uid", "name": self.about["kind"]}
        return tuple(
            RowIdentity(
                kind, self.rows[column].to_numpy(), self.rows[f"{column}_occurrence"].to_numpy()
            )
            for column, kind in kinds.items()
            if column in self.rows
        )

    def used(self, name: str) -> NDArray[np.float32] | None:
        """Return the numbers of that name, (N, k); None where the model used none."""
        columns = [str(c) for c in self.rows if re.fullmatch(rf"{name}_\d+", str(c))]
        return self.rows[columns].to_numpy(np.float32) if columns else None


# --- at the fit -------------------------------------------------------------------------------


def record_of(dataset: Dataset, labels: str | None = None) -> Record:
    """Remember the images of a fit; ``labels`` names the column that classes came from."""
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
    rows["pixels"] = pd.array([pd.NA] * source.n, dtype="UInt64")
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
        "columns": column_sums(source.particles),
        "labels": labels,
    }
    return Record(rows, about)


def fingerprint(record: Record) -> str:
    """Hash everything that is remembered; begins with ``2-``, the version of the hash."""
    digest = hashlib.sha256(repr(sorted(record.about["columns"].items())).encode())
    for name in record.rows:
        digest.update(f"{name}".encode())
        digest.update(_column_bytes(record.rows[name].fillna(0).to_numpy()))
    return f"2-{digest.hexdigest()}"


def _selection(source: Source) -> Ints:
    return np.arange(source.n) if source.selection is None else source.selection


def used_of(dataset: Dataset) -> dict[str, NDArray[np.float32]]:
    """Collect what the model uses of each image besides its pixels, (N, k) each."""
    parts = {
        "ctf": dataset.ctf,
        "rotation": dataset.rotation,
        "shift": dataset.translation,
        "tilt": None if dataset.wedges is None else dataset.wedges.tilt_range,
    }
    return {
        name: np.asarray(values, np.float32).reshape(dataset.n, -1)
        for name, values in parts.items()
        if values is not None
    }


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
    """Hash the number of images, their shape, and those that are sampled, in their order."""
    digest = hashlib.sha256(repr((stack.n, stack.shape, stack.channels)).encode())
    digest.update(pixel_sums(stack, sampled(stack)).tobytes())
    return f"2-{digest.hexdigest()}"


def source_fingerprint(source: Source) -> str:
    """Hash images, in their order, and the columns of their table that say what pixels mean."""
    digest = hashlib.sha256(image_fingerprint(source.stack).encode())
    digest.update(source.stack.sizes().tobytes())
    sums = column_sums(source.particles)
    digest.update(repr(sorted(pair for pair in sums.items() if MEANING.match(pair[0]))).encode())
    return f"2-{digest.hexdigest()}"


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


# --- later ------------------------------------------------------------------------------------


def places_in(record: Record, source: Source) -> Ints:
    """Find the images of a run in a whole input, whatever its order is.

    Returns
    -------
    places
        (N,) row of the input that is each image of the run.

    Raises
    ------
    InputError
        Where some are not there.
    """
    particles = source.particles
    pair = common_identity(record.identities(), identities_of(particles))
    if pair is None:
        if not record.about["bare"] or source.n != record.about["whole"]:
            raise InputError(
                f"{source.stack.name}: it does not name its images as the input of the run did, or "
                f"holds {source.n}, expected the {record.about['whole']} images of the fit"
            )
        return record.rows["row"].to_numpy(np.int64)
    bare = particles.format == "none"
    names = ("the run", particles.name)
    part = record.n < record.about["whole"]
    places = match_rows(*pair, names=names, renamed=bare, whole=not part)
    missing = np.flatnonzero(places < 0)
    if missing.size:
        example = str(pair[0].key[missing[0]])[:80]
        raise InputError(
            f"{particles.name}: {missing.size} of the {record.n} images of the run are not there "
            f"(the first is {example}), expected the input of the fit"
        )
    if not np.array_equal(places, record.rows["row"]):
        logger.warning("%s: the rows are in another order than at the fit; followed", names[1])
    return places


def check_pixels(record: Record, stack: Stack) -> None:
    """Refuse images, in the order of the run, that are not those of the fit.

    Raises
    ------
    InputError
        Where the file of an image has another size, or a sampled image other pixels.
    """
    then, now = record.rows["file_bytes"].to_numpy(), stack.sizes()
    rows = np.flatnonzero((then != now) & (then >= 0) & (now >= 0))
    if rows.size:
        row = int(rows[0])
        raise InputError(
            f"{stack.where(row)}: its file has {now[row]} bytes and had {then[row]} at the fit, so "
            "the images were replaced, expected those that the run was fitted to"
        )
    sample = np.flatnonzero(record.rows["pixels"].notna())
    known = record.rows["pixels"].to_numpy()[sample].astype(np.uint64)
    changed = np.flatnonzero(pixel_sums(stack, sample) != known)
    if changed.size:
        raise InputError(
            f"{stack.where(int(sample[changed[0]]))}: its pixels are not those that the run was "
            f"fitted to, as are those of {changed.size} of {len(sample)} images looked at; the "
            "images were replaced or re-ordered"
        )


def check_used(record: Record, dataset: Dataset) -> None:
    """Refuse images of which the model would now use other numbers than at the fit.

    Raises
    ------
    InputError
        Where the CTF, the poses, the tilts or the pixel size changed; it names column and row.
    """
    found = used_of(dataset)
    if record.used("ctf") is None:  # it came into the table after the fit
        dataset.ctf = None
        found.pop("ctf", None)
    changed_columns = changed_since(record, dataset.source.particles)
    for name, words in WORDS.items():
        then, now = record.used(name), found.get(name)
        if then is None:
            continue
        if now is None or now.shape != then.shape:
            raise InputError(f"{dataset.source.particles.name}: {words} of the fit is not there")
        relative, absolute = SAME[name]
        bad = np.argwhere(~np.isclose(now, then, relative, absolute))
        if bad.size:
            row, k = map(int, bad[0])
            which = f" ({CtfColumn(k).name.lower().replace('_', ' ')})" if name == "ctf" else ""
            columns = f"; changed columns: {', '.join(changed_columns[:4])}"
            raise InputError(
                f"{dataset.source.stack.where(row)}: {words}{which} was {then[row, k]:g} at the "
                f"fit and is {now[row, k]:g}{columns if changed_columns else ''}"
            )
    meaning = [name for name in changed_columns if MEANING.match(name)]
    if meaning and dataset.ctf is not None:
        raise InputError(
            f"{dataset.source.particles.name}: {meaning[0]} has changed since the fit, which used "
            "it, expected the values of the fit"
        )
    if changed_columns:
        logger.info(
            "%s: changed since the fit, which did not use it: %s",
            dataset.source.particles.name,
            ", ".join(changed_columns[:8]),
        )


def changed_since(record: Record, particles: Particles) -> list[str]:
    """Name the columns whose values changed or that are gone, those that name images apart."""
    now, then = column_sums(particles), record.about["columns"]
    return [name for name in then if now.get(name) != then[name] and name not in NAMING]


def check_labels(record: Record, particles: Particles, labels: list[Any] | None) -> None:
    """Refuse a table whose column of classes changed.

    Raises
    ------
    InputError
        Where it did; it names the column.
    """
    name = record.about.get("labels")
    if name is None or labels is None or not particles.has(name):
        return
    now = particles.column(name).tolist()
    bad = next((k for k, pair in enumerate(zip(now, labels, strict=True)) if _other(*pair)), None)
    if bad is not None:
        raise InputError(
            f"{particles.name}: {name}, the labels of the run, was {labels[bad]} for its image "
            f"{bad + 1} and is {now[bad]}, expected the values of the fit"
        )


def _other(now: Any, then: Any) -> bool:
    unknown = now != now and then != then  # NaN
    return str(now) != str(then) and now != then and not unknown
