"""The identity of a row of a particle table, and the matching of rows of two tables.

Tables of one data set may have any order: a refinement sorts its particles, and a passthrough file
of cryoSPARC has another order.  So rows are compared by the identity of the image, never by their
position.  A symmetry-expanded set names an image several times.  A row is then identified by its
image and its occurrence: the second row of an image belongs to the second row of that image in the
other table.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modpose.data.image_names import split_column, split_names
from modpose.data.paths import match_stacks, normalised
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.data.particles import Particles
    from modpose.data.source import Source

IdentityKind = Literal["uid", "image", "file", "place"]
Ints = NDArray[np.int64]

IMAGE_COLUMNS = ("rlnImageName", "image", "file", "filename", "file_name", "path")
"""Columns of a CSV table that may name the images."""
EXACT_FLOAT = 2.0**53
"""From here on float64 rounds integers, so it cannot hold a uid."""
KIND_WORDS = {
    "uid": "the uid of cryoSPARC",
    "image": "image number and stack",
    "file": "file name",
    "place": "place in the micrograph",
}
"""The kinds of identity, in words."""


@dataclass(frozen=True)
class RowIdentity:
    """The identity of each row of a table.

    Attributes
    ----------
    kind
        ``uid`` (cryoSPARC), ``image`` (number@stack), ``file`` (a name without a number), or
        ``place`` (micrograph and coordinates).
    key
        (N,) uint64 for ``uid``; else str, ``12@folder/stack.mrcs``, ``folder/picture.png`` or
        ``mics/a.mrc 812.0 95.5``.
    occurrence
        (N,) number of earlier rows with the same key; above 0 in symmetry-expanded sets.
    """

    kind: IdentityKind
    key: NDArray[Any]
    occurrence: Ints

    @classmethod
    def of(cls, kind: IdentityKind, key: NDArray[Any]) -> RowIdentity:
        """Count the occurrences of each key."""
        return cls(kind, key, _occurrences(key))

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.key)

    def subset(self, index: Ints) -> RowIdentity:
        """Keep the rows at ``index``; occurrences stay those of the whole table."""
        return RowIdentity(self.kind, self.key[index], self.occurrence[index])


def identities_of(particles: Particles) -> tuple[RowIdentity, ...]:
    """Return the identities of the rows of a table, the best kind first; empty without any.

    Raises
    ------
    InputError
        If a row names its image wrongly (number 0, for example).
    """
    found = [_uids(particles), _images(particles)]
    return tuple(identity for identity in found if identity is not None)


def image_names(source: Source) -> NDArray[np.object_] | None:
    """Return the name of each image: ``12@folder/stack.mrcs`` or ``folder/picture.png``, (N,).

    None for an array in memory.
    """
    for identity in identities_of(source.all_particles):
        if identity.kind != "uid":
            chosen = slice(None) if source.selection is None else source.selection
            return np.asarray(identity.key, object)[chosen]
    return None


EXPANDED = "sym_expand/src_uid"
"""Field of cryoSPARC: the uid of the particle that a row is a copy of."""


def particles_of_rows(particles: Particles) -> Ints:
    """Number the particle of each row, (N,), in the order of their first rows.

    Rows of one image are copies of one particle, as a set expanded by symmetry has them.
    """
    if particles.has(EXPANDED):
        return _codes(particles.column(EXPANDED))[0]
    found = identities_of(particles)
    return _codes(found[0].key)[0] if found else np.arange(particles.n)


def common_identity(
    wanted: Sequence[RowIdentity], offered: Sequence[RowIdentity]
) -> tuple[RowIdentity, RowIdentity] | None:
    """Choose the best pair of identities of two tables that can be compared.

    If the uids have no value in common (two imports of the same images), image names are used.
    """
    pairs = [(w, o) for w in wanted for o in offered if (w.kind == "uid") == (o.kind == "uid")]
    for w, o in pairs:
        if w.kind != "uid" or np.isin(w.key, o.key).any():
            return w, o
    return pairs[0] if pairs else None


def match_rows(
    wanted: RowIdentity,
    offered: RowIdentity,
    *,
    names: tuple[str, str] = ("the images", "the table"),
    per_image: bool = False,
    renamed: bool = False,
    moved: bool = False,
    whole: bool = True,
) -> Ints:
    """Find, for each row of one table, the same row of another table.

    Parameters
    ----------
    wanted, offered
        Identities of the rows of both; kinds as chosen by :func:`common_identity`.
    names
        Names of the two tables in messages.
    per_image
        Whether the offered data belong to the image (its CTF, its class), so that one offered row
        is used for all occurrences of its image.
    renamed
        Whether both name one stack each, which is the same under another name.
    moved
        Whether all files may have moved from one folder to another; see
        :func:`modpose.data.paths.match_stacks`.
    whole
        Whether ``wanted`` is a whole table.  If it is a part, with occurrences counted in the
        whole table, an image may appear more often in what is offered.

    Returns
    -------
    rows
        (N wanted,) rows of ``offered``; -1 if there is none.

    Raises
    ------
    InputError
        If an image appears once on one side and several times on the other, or the name of a stack
        matches two stacks.
    """
    if (wanted.kind == "uid") != (offered.kind == "uid"):
        raise InputError(
            f"{names[1]}: its rows have {KIND_WORDS[offered.kind]} and those of {names[0]} "
            f"{KIND_WORDS[wanted.kind]}, so they cannot be compared"
        )
    if wanted.kind == "uid":
        keys = np.concatenate([wanted.key.astype(np.uint64), offered.key.astype(np.uint64)])
    elif wanted.kind == "place":
        keys = np.concatenate([wanted.key, offered.key])
    else:
        keys = _image_codes(wanted.key, offered.key, names, renamed, moved)
    code, n_codes = _codes(keys)
    w, o = code[: wanted.n], code[wanted.n :]
    count_w, count_o = np.bincount(w, minlength=n_codes), np.bincount(o, minlength=n_codes)
    occurrence = np.where(count_o[w] == 1, 0, wanted.occurrence) if per_image else wanted.occurrence
    different = (count_w > 0) & (count_o > 0) & (count_w != count_o)
    if per_image:
        different &= count_o != 1
    if not whole:
        different &= count_w > count_o
    unlike = np.flatnonzero(different[w])
    if unlike.size:
        row = int(unlike[0])
        raise InputError(
            f"{names[1]}: {_shown(wanted.key[row])} is in {count_o[w[row]]} rows, but in "
            f"{count_w[w[row]]} of {names[0]}, so which row belongs to which is not known"
        )
    return _find((w, occurrence), (o, offered.occurrence))


# --- what a table says --------------------------------------------------------------------------


def _uids(particles: Particles) -> RowIdentity | None:
    """Read the uids; None if there are none, or if they do not distinguish rows."""
    if not _has_uids(particles):
        return None
    values = particles.column("uid")
    if values.dtype.kind == "f":
        exact = np.isfinite(values) & (np.abs(values) < EXACT_FLOAT) & (values == np.floor(values))
        if not exact.all():
            return None
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu":
        return None
    key = values.astype(np.uint64)
    return None if _is_constant(key) else RowIdentity.of("uid", key)


def _has_uids(particles: Particles) -> bool:
    return particles.format in ("cs", "csv") and particles.has("uid")


def has_useless_uids(particles: Particles) -> bool:
    """Whether there are useless uids: rounded, all the same, or not numbers."""
    return _has_uids(particles) and _uids(particles) is None and particles.n > 1


def _is_constant(key: NDArray[Any]) -> bool:
    return len(key) > 1 and bool((key == key[0]).all())


def _images(particles: Particles) -> RowIdentity | None:
    """Read image numbers and stacks, or file names; None if the table has neither."""
    if particles.format == "none":
        return _untabled(particles)
    if particles.format == "cs":
        if not (particles.has("blob/path") and particles.has("blob/idx")):
            return None
        number = particles.numbers("blob/idx").astype(np.int64) + 1
        paths = particles.column("blob/path")
    else:
        columns = ("rlnImageName",) if particles.format == "star" else IMAGE_COLUMNS
        column = next((name for name in columns if particles.has(name)), None)
        if column is None:
            return None
        number, paths = split_column(particles, column)
    return _named(number, paths)


def _untabled(particles: Particles) -> RowIdentity | None:
    """Name images without a table: by their position in a stack, or by their file."""
    position = particles.position
    if particles.has("file"):
        files = particles.column("file")
        number = np.full(particles.n, -1) if position is None else position + 1
        return _named(number, files)
    if position is None:
        return None
    name = np.array([posixpath.basename(normalised(particles.name))], dtype=object)
    return _named(position + 1, np.repeat(name, particles.n))


def _named(number: Ints, paths: NDArray[Any]) -> RowIdentity | None:
    """Build the keys; None if all rows have the same key."""
    clean: dict[str, str] = {}
    keys = np.empty(len(paths), dtype=object)
    for i, (k, path) in enumerate(zip(number.tolist(), paths.tolist(), strict=True)):
        text = clean.get(path)
        if text is None:
            text = clean[path] = normalised(str(path))
        keys[i] = text if k < 0 else f"{k}@{text}"
    kind: IdentityKind = "image" if (number >= 0).any() else "file"
    return None if _is_constant(keys) else RowIdentity.of(kind, keys)


# --- comparing ----------------------------------------------------------------------------------


def _codes(keys: NDArray[Any]) -> tuple[Ints, int]:
    import pandas as pd

    code, values = pd.factorize(keys)
    return np.asarray(code, dtype=np.int64), len(values)


def _occurrences(key: NDArray[Any]) -> Ints:
    """Count, for each row, the earlier rows with the same key."""
    code, _ = _codes(key)
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    within = np.arange(len(code)) - np.repeat(first, np.diff(first, append=len(code)))
    occurrence = np.empty(len(code), dtype=np.int64)
    occurrence[order] = within
    return occurrence


def _find(wanted: tuple[Ints, Ints], offered: tuple[Ints, Ints]) -> Ints:
    """Look up (code, occurrence) pairs; each appears once in what is offered."""
    stride = 1 + max(int(part[1].max(initial=0)) for part in (wanted, offered))
    w, o = (part[0] * stride + part[1] for part in (wanted, offered))
    if np.array_equal(w, o):
        return np.arange(len(w), dtype=np.int64)
    if not o.size:
        return np.full(len(w), -1, dtype=np.int64)
    order = np.argsort(o, kind="stable")
    place = np.minimum(np.searchsorted(o, w, sorter=order), len(o) - 1)
    rows = order[place]
    return np.where(o[rows] == w, rows, -1).astype(np.int64)


def _image_codes(
    wanted: NDArray[Any],
    offered: NDArray[Any],
    names: tuple[str, str],
    renamed: bool,
    moved: bool,
) -> Ints:
    """Give the images of both sides common numbers; a name without a number is a one-image file."""
    number_w, path_w = split_names(wanted, names[0])
    number_o, path_o = split_names(offered, names[1])
    stack_w, unique_w = _unique(path_w)
    stack_o, unique_o = _unique(path_o)
    if renamed and len(unique_w) == len(unique_o) == 1:
        same = np.zeros(1, dtype=np.int64)
    else:
        same = match_stacks(unique_w, unique_o, names, moved)
    shared = np.where(same >= 0, same, len(unique_o) + np.arange(len(unique_w)))
    stack = np.concatenate([shared[stack_w], stack_o])
    number = np.abs(np.concatenate([number_w, number_o]))
    _, compact = np.unique(number, return_inverse=True)
    return (stack * (int(compact.max(initial=0)) + 1) + compact).astype(np.int64)


def _unique(paths: NDArray[Any]) -> tuple[Ints, list[str]]:
    import pandas as pd

    code, values = pd.factorize(paths)
    return np.asarray(code, dtype=np.int64), [str(value) for value in values]


def _shown(key: object) -> str:
    text = str(key)
    return text if len(text) <= 60 else f"...{text[-57:]}"
