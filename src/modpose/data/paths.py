"""Paths in tables: their form, and which paths of two tables are the same file."""

from __future__ import annotations

import logging
import posixpath
import re
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError

logger = logging.getLogger("modpose")

Ints = NDArray[np.int64]
Parts = tuple[str, ...]

JOB_FOLDER = re.compile(r"(job\d+|J\d+)", re.ASCII)
"""Folder names of jobs of RELION (job012) or cryoSPARC (J12); other jobs have other images."""


def normalised(path: str) -> str:
    """Normalise a path: forward slashes, no ``.`` or ``..``, no mark of cryoSPARC."""
    path = path.strip().lstrip(">").replace("\\", "/")
    path = posixpath.normpath(path) if path else path
    return path[1:] if path.startswith("//") else path


def match_stacks(
    wanted: list[str], offered: list[str], names: tuple[str, str], moved: bool = False
) -> Ints:
    """Find, for each path of one table, the same path in another; both lists without repeats.

    Equal texts are the same path.  Otherwise the path with the longest common end counts, if one
    of the two is the end of the other (``Extract/job012/a.mrcs`` and
    ``/data/project/Extract/job012/a.mrcs``).  With ``moved``, a whole project may have moved: both
    paths are absolute, with nothing common at the beginning, two common names at the end, no job
    folder in the different part, and the same move for all.  The caller then compares the images.

    Returns
    -------
    same
        (number wanted,) positions in ``offered``; -1 if there is none.

    Raises
    ------
    InputError
        If a path matches two paths, or two paths match one.
    """
    place = {path: i for i, path in enumerate(offered)}
    same = np.array([place.get(path, -1) for path in wanted], dtype=np.int64)
    exact = same >= 0
    if (same < 0).any():
        _match_plainly(wanted, offered, same)
    _match_slowly(wanted, offered, same, names, moved)
    _say_taken(wanted, offered, np.where(exact, -1, same), names)
    return same


def _match_plainly(wanted: list[str], offered: list[str], same: Ints) -> None:
    """Match the paths whose last one, two or three names are unique on both sides.

    Nearly all paths are of this kind, and no other path can have a longer common end; see
    :func:`match_stacks` for the others.
    """
    for depth in (1, 2, 3):
        left = np.flatnonzero(same < 0).tolist()
        if not left:
            return
        rest = np.setdiff1d(np.arange(len(offered)), same).tolist()
        of_wanted = _only_ends(wanted, left, depth)
        of_offered = _only_ends(offered, rest, depth)
        pairs = [
            (i, j)
            for end, i in of_wanted.items()
            if i >= 0 and (j := of_offered.get(end, -1)) >= 0 and _is_end(wanted[i], offered[j])
        ]
        if pairs:
            rows = np.array(pairs)
            same[rows[:, 0]] = rows[:, 1]


def _only_ends(paths: list[str], rows: list[int], depth: int) -> dict[str, int]:
    """Map the last names of paths to the position of the path; -1 if there are several."""
    found: dict[str, int] = {}
    for i in rows:
        end = _last(paths[i], depth)
        found[end] = -1 if end in found else i
    return found


def _is_end(one: str, other: str) -> bool:
    return one.endswith(f"/{other}") or other.endswith(f"/{one}")


def _last(path: str, depth: int) -> str:
    at = len(path)
    for _ in range(depth):
        at = path.rfind("/", 0, at)
        if at < 0:
            return path
    return path[at + 1 :]


def _match_slowly(
    wanted: list[str], offered: list[str], same: Ints, names: tuple[str, str], moved: bool
) -> None:
    left = np.flatnonzero(same < 0)
    if not left.size:
        return
    taken = set(same[same >= 0].tolist())
    ends = sorted((_turned(path), i) for i, path in enumerate(offered) if i not in taken)
    known = dict(ends)
    moves: set[tuple[str, str]] = set()
    owner: dict[int, str] = {}
    for i in left.tolist():
        turned = _turned(wanted[i])
        found = _of_end(turned, known, ends, (wanted[i], names[0], names[1]))
        if found is None:
            if not moved:
                continue
            found, move = _of_move(turned, ends)
            if found is None or len(moves | {move}) > 1:
                continue
            moves.add(move)
        if found in owner:
            raise InputError(
                f"{names[1]}: {offered[found]} could be {owner[found]} and {wanted[i]} of "
                f"{names[0]}; write the paths alike in both tables"
            )
        owner[found] = wanted[i]
        same[i] = found


def _say_taken(
    wanted: list[str], offered: list[str], guessed: Ints, names: tuple[str, str]
) -> None:
    rows = np.flatnonzero(guessed >= 0)
    if not rows.size:
        return
    more = f" (and {rows.size - 1} more)" if rows.size > 1 else ""
    logger.warning(
        "%s: %s is assumed to be %s of %s, because of the end of the path%s",
        names[1],
        offered[guessed[rows[0]]],
        wanted[rows[0]],
        names[0],
        more,
    )


def _turned(path: str) -> Parts:
    """Split a path into names in reverse order, without ``..`` and ``~`` at its beginning."""
    parts = path.split("/")
    while len(parts) > 1 and parts[0] in ("..", "~"):
        parts.pop(0)
    return tuple(reversed(parts))


def _of_end(
    turned: Parts, known: dict[Parts, int], ends: list[tuple[Parts, int]], words: tuple[str, ...]
) -> int | None:
    """Find the single offered path that ends with this one, else the longest that is its end."""
    relative = turned[:-1] if len(turned) > 2 and turned[-1] == "" else turned
    at = bisect_left(ends, (relative, -1))
    longer = [e for e in ends[at : at + 2] if e[0][: len(relative)] == relative]
    if len(longer) > 1:
        both = " and ".join("/".join(reversed(parts)) for parts, _ in longer)
        raise InputError(
            f"{words[2]}: {both} both end like {words[0]} of {words[1]}; write the paths alike "
            "in both tables"
        )
    if longer:
        return longer[0][1]
    for length in range(len(turned) - 1, 0, -1):
        end = turned[:length]
        for shorter in (end, (*end, "")):
            if shorter in known and (length > 1 or shorter[-1] != ""):
                return known[shorter]
    return None


def _of_move(turned: Parts, ends: list[tuple[Parts, int]]) -> tuple[int | None, tuple[str, str]]:
    """Find the single offered path that is this one after a move of the whole project."""
    at = bisect_left(ends, (turned, -1))
    near = [(_common(turned, parts), parts, i) for parts, i in ends[max(at - 2, 0) : at + 2]]
    best = max((common for common, _, _ in near), default=0)
    at_best = [entry for entry in near if entry[0] == best]
    if best < 2 or len(at_best) > 1:
        return None, ("", "")
    one, other = turned[best:], at_best[0][1][best:]
    absolute = all(head[-1] == "" or head[-1].endswith(":") for head in (one, other))
    apart = len(one) > 1 and len(other) > 1 and one[-2] != other[-2]
    if not (absolute and apart) or any(JOB_FOLDER.fullmatch(name) for name in one + other):
        return None, ("", "")
    return at_best[0][2], ("/".join(one), "/".join(other))


def _common(one: Parts, other: Parts) -> int:
    """Count the last names that two reversed paths have in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(one), len(other)))
