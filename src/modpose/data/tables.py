"""Reading particle tables: STAR, cryoSPARC's .cs and .csg, CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modpose.data.cryosparc import read_cs
from modpose.data.cryosparc_group import read_csg
from modpose.data.csv_reader import read_csv_table
from modpose.data.particles import Particles, listed
from modpose.data.star import (
    StarBlocks,
    columns_of,
    other_kind,
    particle_blocks,
    read_star,
    tilt_stack_reason,
)
from modpose.data.table_form import TableForm, star_version
from modpose.errors import InputError

TABLES = (".star", ".cs", ".csg", ".csv")


def read_particles(path: Path, *, tilts: bool = True) -> Particles:
    """Read the table of a .star, .cs, .csg or .csv file.

    Parameters
    ----------
    path
        The table.
    tilts
        Whether a table of 2-D tilt stacks is taken.
    """
    suffix = path.suffix.lower()
    if suffix == ".cs":
        return read_cs(path)
    if suffix == ".csg":
        return read_csg(path)
    if suffix == ".csv":
        return read_csv(path)
    blocks = read_star(path)
    particles = particles_of_star(blocks, str(path), star_version(path))
    if not tilts:
        refuse_tilt_stacks(blocks, str(path))
    return particles


def particles_of_star(
    blocks: StarBlocks,
    name: str,
    version: int | None = None,
    *,
    columns: Sequence[str] = ("rlnImageName",),
) -> Particles:
    """Read the particles from the blocks of a STAR file of any version.

    Parameters
    ----------
    blocks
        Of the file.
    name
        Of the file, for messages.
    version
        Of its format.
    columns
        The first of these that the file has marks the block of the particles.

    Raises
    ------
    InputError
        If the file lists no particle images, or lists them twice.
    """
    import pandas as pd

    found = next(filter(None, (particle_blocks(blocks, column) for column in columns)), [])
    if not found:
        if "particles" in blocks:
            have = listed(columns_of(blocks["particles"]))
            raise InputError(f"{name}: data_particles has no column rlnImageName, only {have}")
        raise InputError(f"{name}: this is {other_kind(blocks)}; it lists no particle images")
    if len(found) > 1:
        both = " and ".join(f"data_{block}" for block in found)
        raise InputError(f"{name}: both {both} list particles, expected one such block")
    content = blocks[found[0]]
    table = pd.DataFrame([content]) if isinstance(content, dict) else content
    if not len(table):
        raise InputError.of(name, "the number of particles", 0, "at least one")
    optics = blocks.get("optics")
    if isinstance(optics, dict):
        optics = pd.DataFrame([optics])
    others = {key: block for key, block in blocks.items() if key not in ("optics", found[0])}
    form = TableForm(version, found[0], others)
    return Particles(table, optics, "star", name, form)


def refuse_tilt_stacks(blocks: StarBlocks, name: str) -> None:
    """Raise InputError if the particles are 2-D tilt-series stacks."""
    reason = tilt_stack_reason(blocks)
    if reason:
        raise InputError(
            f"{name}: the particles are 2-D tilt-series stacks, many images per particle "
            f"({reason}), expected one image or one volume per particle"
        )


def read_csv(path: Path) -> Particles:
    """Read a CSV table with a header line."""
    table = read_csv_table(path)
    if not len(table):
        raise InputError.of(path, "the number of rows", 0, "at least one")
    return Particles(table, None, "csv", str(path))
