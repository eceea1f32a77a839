"""Check that images opened later are those of the fit: in any order; others are refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.identity import (
    IMAGE_COLUMNS,
    RowIdentity,
    common_identity,
    identities_of,
    match_rows,
)
from modpose.data.record import column_sums, pixel_sums, used_of
from modpose.errors import InputError
from modpose.observe.ctf import CtfColumn

if TYPE_CHECKING:
    from modpose.data.dataset import Dataset
    from modpose.data.particles import Particles
    from modpose.data.record import Record
    from modpose.data.source import Source
    from modpose.data.stack import Stack

logger = logging.getLogger("modpose")

Ints = NDArray[np.int64]

NAMING = (*IMAGE_COLUMNS, "uid", "blob/path", "blob/idx", "folder")
"""Columns that identify images."""
SAME = {
    "ctf": (1e-5, 1e-4),
    "rotation": (0.0, 1e-5),
    "shift": (0.0, 1e-3),
    "tilt": (0.0, 1e-3),
    "mask": (1e-4, 1e-5),
    "sign": (0.0, 0.0),
    "odd": (1e-5, 1e-6),
    "multiplied": (1e-5, 1e-4),
}
"""Relative and absolute tolerance for equal numbers on another machine."""
WORDS = {
    "ctf": "the CTF",
    "rotation": "the rotation",
    "shift": "the shift",
    "tilt": "the tilts",
    "mask": "the wedge mask",
    "sign": "the sign of the image",
    "odd": "the beam tilt or odd aberration",
    "multiplied": "the CTF that the image was multiplied by",
}
SAME_SIZE = 1e-5
"""Relative tolerance of the pixel size."""


def places_in(record: Record, particles: Particles) -> Ints:
    """Find the images of a run in a whole input with any order.

    Returns
    -------
    places
        (N,) row of the input for each image of the run.

    Raises
    ------
    InputError
        If some are missing.
    """
    pair = common_identity(record.identities(), identities_of(particles))
    if pair is None:
        if not record.about["bare"] or particles.n != record.about["whole"]:
            raise InputError(
                f"{particles.name}: it does not name its images as the input of the run did, or "
                f"holds {particles.n}, expected the {record.about['whole']} images of the fit"
            )
        return record.rows["row"].to_numpy(np.int64)
    bare = particles.format == "none"
    names = ("the run", particles.name)
    rows = record.rows["row"].to_numpy(np.int64)
    if _are_there(*pair, rows):
        return rows
    part = record.n < record.about["whole"]
    places = match_rows(*pair, names=names, renamed=bare, moved=True, whole=not part)
    missing = np.flatnonzero(places < 0)
    if missing.size:
        example = str(pair[0].key[missing[0]])[:80]
        raise InputError(
            f"{particles.name}: {missing.size} of the {record.n} images of the run are missing "
            f"(the first is {example}), expected the input of the fit"
        )
    if not np.array_equal(places, rows):
        logger.warning(
            "%s: the images of the run are in other rows than at the fit; they were found by name",
            names[1],
        )
    return places


def _are_there(wanted: RowIdentity, offered: RowIdentity, rows: Ints) -> bool:
    """Return whether the images are in the same rows as at the fit."""
    return (
        wanted.kind == offered.kind
        and (not rows.size or int(rows.max()) < offered.n)
        and np.array_equal(wanted.key, offered.key[rows])
        and np.array_equal(wanted.occurrence, offered.occurrence[rows])
    )


def check_pixels(record: Record, stack: Stack) -> None:
    """Refuse images, in the order of the run, that are not those of the fit.

    Raises
    ------
    InputError
        If a sampled image has other pixels, or the file of another image has another size.
    """
    remembered = record.rows["sampled"].to_numpy()
    sample = np.flatnonzero(remembered)
    known = record.rows["pixels"].to_numpy(np.uint64)[sample]
    changed = np.flatnonzero(pixel_sums(stack, sample) != known)
    if changed.size:
        raise InputError(
            f"{stack.where(int(sample[changed[0]]))}: its pixels changed since the fit, like "
            "those of "
            f"{changed.size} of {len(sample)} checked images; the images were replaced or "
            "re-ordered"
        )
    then, now = record.rows["file_bytes"].to_numpy(), stack.sizes()
    rows = np.flatnonzero(~remembered & (then != now) & (then >= 0) & (now >= 0))
    if rows.size:
        row = int(rows[0])
        raise InputError(
            f"{stack.where(row)}: its file has {now[row]} bytes and had {then[row]} at the fit, so "
            "the images were replaced, expected those that the run was fitted to"
        )


def check_used(record: Record, dataset: Dataset) -> None:
    """Refuse images for which the model would use other numbers than at the fit.

    Raises
    ------
    InputError
        If the CTF, the poses, the tilts or the pixel size changed; the message names column and
        row.
    """
    found = used_of(dataset)
    if record.used("ctf") is None:  # the column was added after the fit
        dataset.ctf = None
        found.pop("ctf", None)
    particles = dataset.source.particles
    changed = changed_since(record, particles)
    for name in WORDS:
        _compare(name, record.used(name), found.get(name), dataset.source, changed)
    if (record.about["pixel_size"] or dataset.pixel_size) != dataset.pixel_size:
        then, now = record.about["pixel_size"], dataset.pixel_size
        if now is None or abs(then - now) > SAME_SIZE * then:
            raise InputError.of(
                particles.name, "the pixel size", f"{now} Å", f"{then:g} Å as at the fit"
            )
    if changed:
        logger.info(
            "%s: columns have changed since the fit, but nothing that it used: %s",
            particles.name,
            ", ".join(changed[:8]),
        )


def _compare(
    name: str,
    then: NDArray[np.float32] | None,
    now: NDArray[np.float32] | None,
    source: Source,
    changed: list[str],
) -> None:
    """Raise InputError if one of these numbers changed."""
    if then is None and now is None:
        return
    if then is None or now is None or now.shape != then.shape:
        verb = "gives" if then is None else "no longer gives"
        raise InputError(
            f"{source.particles.name}: unlike at the fit, it {verb} {WORDS[name]}, expected "
            "the input of the fit"
        )
    relative, absolute = SAME[name]
    bad = np.argwhere(~np.isclose(now, then, relative, absolute, equal_nan=True))
    if not bad.size:
        return
    row, k = map(int, bad[0])
    which = f" ({CtfColumn(k).name.lower().replace('_', ' ')})" if name == "ctf" else ""
    columns = f"; changed columns: {', '.join(changed[:4])}" if changed else ""
    raise InputError(
        f"{source.stack.where(row)}: {WORDS[name]}{which} was {then[row, k]:g} at the fit and is "
        f"{now[row, k]:g}{columns}"
    )


def changed_since(record: Record, particles: Particles) -> list[str]:
    """Return the columns that changed or are missing, except those that name images."""
    now, then = column_sums(particles), record.about["columns"]
    return [name for name in then if now.get(name) != then[name] and name not in NAMING]


def check_labels(record: Record, particles: Particles, labels: list[Any] | None) -> None:
    """Refuse a table with a changed column of classes.

    Raises
    ------
    InputError
        If it changed; the message names the column.
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
