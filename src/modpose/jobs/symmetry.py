"""Expand a set by symmetry, collapse it again, or mirror it.

A map with the symmetry S looks the same from the poses R and R S.  An expanded set has a row for
each element of the group; half sets stay with the particle.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modpose.data.identity import EXPANDED, particles_of_rows
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.errors import InputError
from modpose.geometry.groups import point_group
from modpose.jobs.duplicates import quality
from modpose.limits import check_seed

MIRROR = np.diag([1.0, 1.0, -1.0])


def expanded(particles: Particles, symmetry: str, *, seed: int = 0) -> Particles:
    """Repeat each particle once for each element of a point group, rows of a particle together.

    Parameters
    ----------
    particles
        With poses in space.
    symmetry
        See :func:`modpose.geometry.groups.point_group`.
    seed
        Of the uids that the rows of a cryoSPARC table get; ``sym_expand/src_uid`` keeps the old.

    Returns
    -------
    N times the order of the group rows; every column is repeated, half sets too.  Where the table
    has no ``rlnRandomSubset``, halves are still those of particles, since rows of one image go to
    one half.

    Raises
    ------
    InputError
        There are no poses in space, there is no such group, or the set was expanded already.
    """
    check_seed("expand", seed)
    group = point_group(symmetry)
    rotation = _rotations(particles)
    unit = particles_of_rows(particles)
    first = np.unique(unit, return_index=True)[1]
    if len(first) < particles.n:
        again = int(np.setdiff1d(np.arange(particles.n), first)[0])
        rows = f"rows {int(first[unit[again]]) + 1} and {again + 1}"
        raise InputError(f"{particles.name}: {rows} are one image, expected an image once")
    copies, n = len(group), particles.n
    many = particles.subset(np.repeat(np.arange(n), copies))
    turned = (rotation[:, None] @ group[None]).reshape(-1, 3, 3)
    posed = with_pose(many, rotation=turned)
    if particles.format != "cs":
        return posed
    table = posed.table.copy()
    if "uid" in table:
        table[EXPANDED] = table["uid"].astype(np.uint64)
        table["uid"] = _fresh_uids(table["uid"].to_numpy(np.uint64), seed)
    table["sym_expand/idx"] = np.tile(np.arange(copies, dtype=np.uint32), n)
    return replace(posed, table=table)


def joined(particles: Particles, by: str | None = None) -> Particles:
    """Keep one row of each particle of an expanded set: the best, else the first.

    Parameters
    ----------
    particles
        With several rows per image.
    by
        Column that says which row is better, as in
        :func:`modpose.jobs.duplicates.without_duplicates`; None keeps the first row.

    Raises
    ------
    InputError
        No image has more than one row.
    """
    unit = particles_of_rows(particles)
    if len(np.unique(unit)) == particles.n:
        raise InputError(f"{particles.name}: no image has several rows, expected an expanded set")
    good = np.zeros(particles.n) if by is None else quality(particles, by)
    order = np.lexsort((np.arange(particles.n), -good, unit))
    best = order[np.unique(unit[order], return_index=True)[1]]
    kept = particles.subset(np.sort(best))
    if not kept.has(EXPANDED):
        return kept
    table = kept.table.copy()
    table["uid"] = table[EXPANDED].to_numpy(np.uint64)
    return replace(kept, table=table.drop(columns=[c for c in table if "sym_expand/" in str(c)]))


def mirrored_poses(particles: Particles) -> Particles:
    """Return the poses for the mirrored map (the other hand).

    The images do not change.  With M = diag(1, 1, -1), the map f(M x) seen from M R M gives the
    projection that f gives seen from R.  In RELION's angles, psi and rot become larger by 180
    degrees; so do their priors.
    """
    _refuse_volumes(particles)
    rotation = _rotations(particles)
    posed = with_pose(particles, rotation=MIRROR @ rotation @ MIRROR)
    priors = {name: particles.numbers(name) for name in TURNED_PRIORS if name in posed.table}
    turned = {name: _wrapped(values + 180).round(6) for name, values in priors.items()}
    return replace(posed, table=posed.table.assign(**turned))


TURNED_PRIORS = ("rlnAngleRotPrior", "rlnAnglePsiPrior")
"""Expected angles of filaments, in RELION's tables, that change with the hand."""


def _wrapped(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move angles into -180 to 180 degrees."""
    return (degrees + 180) % 360 - 180


def _refuse_volumes(particles: Particles) -> None:
    """Refuse particles of tomograms: the hand of a volume is that of its tilt series."""
    flat = "rlnImageDimensionality"
    volumes = particles.has(flat) and (particles.numbers(flat) == 3).any()
    if volumes or particles.has("rlnTomoName") or particles.has("rlnCtfImage"):
        raise InputError(
            f"{particles.name}: the particles are those of tomograms, whose hand is that of the "
            "tilt series (rlnTomoHand), expected single images"
        )


def _rotations(particles: Particles) -> NDArray[np.float64]:
    """Rotations in space (N, 3, 3)."""
    found = particles.poses()
    if found is None:
        expected = "rlnAngleRot, ... or alignments3D/pose"
        raise InputError(f"{particles.name}: there are no poses in space, expected {expected}")
    return found[0]


def _fresh_uids(old: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Draw uids that no row has yet."""
    rng = np.random.default_rng(seed)
    while True:
        fresh = rng.integers(1, 2**63, len(old), dtype=np.uint64)
        if len(np.unique(fresh)) == len(old) and not np.isin(fresh, old).any():
            return fresh
