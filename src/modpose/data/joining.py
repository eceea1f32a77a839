"""Join the rows of another table to the images."""

from __future__ import annotations

import logging
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from modpose.data.identity import (
    KIND_WORDS,
    RowIdentity,
    common_identity,
    has_useless_uids,
    identities_of,
    match_rows,
)
from modpose.data.image_names import split_column, split_names
from modpose.data.locate import as_written
from modpose.data.particles import Particles
from modpose.data.paths import JOB_FOLDER, normalised
from modpose.data.places import of_other_picks, places_of
from modpose.errors import InputError

logger = logging.getLogger("modpose")

Ints = NDArray[np.int64]

LOOKED_AT = 1 << 16
"""Bytes of two files that are compared at the beginning, the middle and the end."""
BY_ORDER = "their order alone"
ORIGINAL = "rlnImageOriginalName"
"""Column of the image that an image was made of; RELION's name, and that of our jobs."""

LEAST_SAME = 0.5
"""Smallest share of the shorter table whose places are in the other: fewer agree by chance."""


@dataclass(frozen=True)
class Joined:
    """The row of a table for each of N images.

    Attributes
    ----------
    rows
        (N,) rows of the table; -1 for an image without a row.
    by
        The kind of identity, in words.
    """

    rows: Ints
    by: str


def join_rows(particles: Particles, table: Particles, *, per_image: bool = False) -> Joined:
    """Find the row of a table that belongs to each image.

    Rows are compared by uid, by image number and stack, or by file name; if no image is there,
    also by the image that another one was made of (:data:`ORIGINAL`), then by the place in the
    micrograph.  If one side names no images, both must have the same number of rows, which are then
    paired in order.  Rows of the same names at other coordinates are of other picks.

    Parameters
    ----------
    particles
        The images, all of the input.
    table
        The table to join.
    per_image
        Whether its data belong to an image, not to an occurrence; see :func:`match_rows`.

    Raises
    ------
    InputError
        If it is not certain which row belongs to which image.
    """
    joined = _joined(particles, table, per_image)
    before, table_before = _before(particles), _before(table)
    if joined.by == KIND_WORDS["image"] and _contradicted(joined.rows, before, table_before):
        pairs = [(before, table_before)]
    elif (joined.rows < 0).all():
        pairs = [(particles, table_before), (before, table), (before, table_before)]
    elif of_other_picks(particles, table, joined.rows):
        return _by_place(particles, table, per_image) or _refuse(particles, table, joined)
    else:
        return joined
    for one, other in pairs:
        if one is None or other is None:
            continue
        made_of = _joined(one, other, per_image)
        joined = replace(made_of, by=f"{KIND_WORDS['image']} in {ORIGINAL}")
        if (joined.rows >= 0).any():
            return joined
    return _by_place(particles, table, per_image) or joined


def _by_place(particles: Particles, table: Particles, per_image: bool) -> Joined | None:
    """Join images that were cut out of the same micrographs twice; None if too few are the same."""
    pair = places_of(particles, table)
    if pair is None:
        return None
    rows = match_rows(*pair, names=(particles.name, table.name), per_image=per_image)
    enough = (rows >= 0).sum() >= LEAST_SAME * min(particles.n, table.n)
    return Joined(rows, KIND_WORDS["place"]) if enough else None


def _refuse(particles: Particles, table: Particles, joined: Joined) -> NoReturn:
    """Refuse rows that agree in name only."""
    raise InputError(
        f"{table.name}: compared by {joined.by}, its rows belong to images of {particles.name} at "
        "other coordinates, so it is of other picks, expected a table of these images"
    )


def _before(particles: Particles) -> Particles | None:
    """Name the images that those of a STAR file were made of; None if it does not tell."""
    if particles.format != "star" or ORIGINAL not in particles.table:
        return None
    before = replace(
        particles, table=particles.table.assign(rlnImageName=particles.table[ORIGINAL])
    )
    return before if identities_of(before) else None


def _contradicted(rows: Ints, before: Particles | None, table_before: Particles | None) -> bool:
    """Whether images of one name were made of different images: two jobs wrote like names."""
    if before is None or table_before is None:
        return False
    known = rows >= 0
    one, other = (split_column(side, "rlnImageName") for side in (before, table_before))
    numbers = one[0][known] != other[0][rows[known]]
    return bool(numbers.any()) or [posixpath.basename(path) for path in one[1][known]] != [
        posixpath.basename(path) for path in other[1][rows[known]]
    ]


def _joined(particles: Particles, table: Particles, per_image: bool) -> Joined:
    wanted, offered = identities_of(particles), identities_of(table)
    pair = common_identity(wanted, offered)
    if pair is None:
        if wanted and offered:
            raise InputError(
                f"{table.name}: its rows have {KIND_WORDS[offered[0].kind]}, those of "
                f"{particles.name} {KIND_WORDS[wanted[0].kind]}, so which row belongs to which "
                "image is not known"
            )
        for side in (particles, table):
            if has_useless_uids(side):
                raise InputError(
                    f"{side.name}: its uids are all the same, or no whole numbers of 64 bits, so "
                    "which row belongs to which image is not known"
                )
        named = next((identity for identity in offered if identity.kind != "uid"), None)
        if named is not None and particles.format == "none" and table.n == particles.n:
            return _of_another_stack(particles, table, named)
        return _by_order(particles, table)
    if _is_bare(particles):
        return _of_a_stack(particles, table, pair, per_image)
    names = (particles.name, table.name)
    return Joined(match_rows(*pair, names=names, per_image=per_image), KIND_WORDS[pair[1].kind])


def matched(
    joined: Joined,
    selected: Ints,
    names: tuple[str, str],
    partial: bool,
    *,
    of: str = "images",
    otherwise: str = "only these are used",
) -> Ints:
    """Keep the rows that the other side has, and log how many; refuse a part without ``partial``.

    Parameters
    ----------
    joined
        Rows of the other side for all N rows.
    selected
        (M,) requested rows.
    names
        Names of this side and the other side in messages.
    partial
        Continue with the rows that the other side has, if it lacks some.
    of
        Word for the rows of this side.
    otherwise
        Effect of ``partial``, in words.

    Returns
    -------
    selected
        The rows that the other side has.

    Raises
    ------
    InputError
        If a row is missing there and ``partial`` is not set, or if all are missing.
    """
    known = joined.rows[selected] >= 0
    count, n = int(known.sum()), len(selected)
    what = f"{count} of the {n} {of} of {names[0]}"
    if not count:
        raise InputError(f"{names[1]}: {what} are there (compared by {joined.by}), expected all")
    if count < n and not partial:
        first = int(selected[~known][0]) + 1
        raise InputError(
            f"{names[1]}: {what} are there (compared by {joined.by}; row {first} is not), expected "
            f"all; with --partial {otherwise}"
        )
    if joined.by != BY_ORDER:
        rest = "" if count == n else f"; {otherwise}"
        logger.info("%s: %s are there, by %s%s", names[1], what, joined.by, rest)
    return selected[known]


# --- without names ------------------------------------------------------------------------------


def _by_order(particles: Particles, table: Particles) -> Joined:
    if table.n != particles.n:
        expected = f"{particles.n}, one per image, because the rows have no identity"
        raise InputError.of(table.name, "the number of rows", table.n, expected)
    say_order(table.name, particles)
    return Joined(np.arange(particles.n), BY_ORDER)


def say_order(name: str | Path, particles: Particles) -> None:
    """Log that the rows of a file were paired with the images in order."""
    logger.info(
        "%s: it does not name the images of %s, so its %d rows are used in the order of the images",
        name,
        particles.name,
        particles.n,
    )


# --- a stack without a table --------------------------------------------------------------------


def _is_bare(particles: Particles) -> bool:
    return particles.format == "none" and not particles.has("file")


def _of_a_stack(
    particles: Particles,
    table: Particles,
    pair: tuple[RowIdentity, RowIdentity],
    per_image: bool,
) -> Joined:
    """Join a table to the given stack, by the number of the image in it."""
    wanted, offered = pair
    own = _own_stack(Path(particles.name), _stacks(offered), Path(table.name))
    if own is None:
        return _of_another_stack(particles, table, offered)
    number, paths = split_names(offered.key, table.name)
    lines = np.flatnonzero(paths == own)
    largest = int(np.abs(number[lines]).max())
    if largest > particles.n:
        raise InputError(
            f"{table.name}: it names image {largest} of {own[-60:]}, but {particles.name} has "
            f"{particles.n} images, expected a table of the same stack"
        )
    names = (particles.name, table.name)
    found = match_rows(
        wanted, offered.subset(lines), names=names, per_image=per_image, renamed=True
    )
    return Joined(np.where(found >= 0, lines[found], -1), KIND_WORDS["image"])


def _own_stack(stack: Path, written: list[str], table: Path) -> str | None:
    """Find a table's name for a stack; None if the table does not name it.

    The file name must be the same.  If the table's file exists, it must be the same file or have
    the same bytes.  Otherwise its path must be the end of the stack's path, or it must be the only
    path with that file name and from no other job.
    """
    path = normalised(str(stack.absolute()))
    named = [name for name in written if posixpath.basename(name) == posixpath.basename(path)]
    places = {name: as_written(name, table) for name in named}
    same = [name for name, file in places.items() if file and _same_content(file, stack)]
    if len(same) > 1:
        raise InputError(
            f"{table}: {same[0]} and {same[1]} are both {stack} by their bytes, so which row "
            "belongs to which image is not known; give a table of this stack"
        )
    if same:
        return same[0]
    gone = [name for name, file in places.items() if file is None]
    ends = [name for name in gone if f"/{path}".endswith(f"/{name}")]
    if len(ends) == 1 and (len(named) == 1 or "/" in ends[0]):
        return ends[0]
    if len(named) != 1 or not gone:
        return None
    jobs = [_jobs(path), _jobs(named[0])]
    if all(jobs) and jobs[0] != jobs[1]:
        return None
    logger.warning("%s: %s is assumed to be %s, because of its name", table, named[0], stack)
    return named[0]


def _of_another_stack(particles: Particles, table: Particles, offered: RowIdentity) -> Joined:
    """Pair a stack with a table of other stacks in order (it was made from them), if certain.

    It is certain if the table lists one stack from its first image to its last.  The origin of an
    array in memory is unknown, so a table of several stacks is used in order too.
    """
    names = _stacks(offered)
    number = split_names(offered.key, table.name)[0]
    in_order = np.array_equal(np.abs(number), np.arange(1, len(number) + 1))
    an_array = particles.position is None
    if table.n == particles.n and (in_order or (an_array and len(names) > 1)):
        return _by_order(particles, table)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    raise InputError(
        f"{table.name}: it is of the stack {names[0][-60:]}{more}, not of {particles.name}, so "
        "which row belongs to which image is not known; give a table of this stack"
    )


def _stacks(identity: RowIdentity) -> list[str]:
    _, paths = split_names(identity.key, "the table")
    return [str(path) for path in dict.fromkeys(paths.tolist())]


def _jobs(path: str) -> list[str]:
    return [part for part in path.split("/") if JOB_FOLDER.fullmatch(part)]


def _same_content(one: Path, other: Path) -> bool:
    """Compare two files: one file, or the same size and the same bytes at three places."""
    if not other.is_file():
        return True  # an array in a container, or a Zarr folder
    if one.samefile(other):
        return True
    size = one.stat().st_size
    if size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        for place in (0, max(size // 2, 0), max(size - LOOKED_AT, 0)):
            a.seek(place)
            b.seek(place)
            if a.read(LOOKED_AT) != b.read(LOOKED_AT):
                return False
    return True
