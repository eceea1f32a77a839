"""Writing a table of particles in its original form: STAR, or a cryoSPARC table with its group."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from modpose.data.cryosparc import records_of, write_cs_records
from modpose.data.identity import IMAGE_COLUMNS
from modpose.data.image_files import image_references
from modpose.data.locate import as_written, find_files
from modpose.data.particles import Particles
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.files.text import in_shell
from modpose.files.writing import Staging

if TYPE_CHECKING:
    from modpose.data.source import Source

FORMATS = {".star": "star", ".cs": "cs"}
"""Extension of a table, and the format of its particles."""
NAMING = ("rlnImageName", "blob/path", *IMAGE_COLUMNS)
GROUP_VERSION = "v4.0.0"
"""Version of cryoSPARC in the written groups (``.csg``)."""
KINDS = ((r"components_mode_\d+", "components"), (r"alignments_class_\d+", "alignments3D"))
"""Fields of a cryoSPARC table with another name than their kind."""


def files_of_table(out: Path) -> list[Path]:
    """Return the files that :func:`write_table` writes: a ``.cs`` has a ``.csg`` too."""
    return [out, out.with_suffix(".csg")] if out.suffix.lower() == ".cs" else [out]


def check_format(out: Path, particles: Particles) -> None:
    """Raise InputError if particles cannot be written to ``out`` in their original form."""
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise InputError.of(out, "the extension", f"'{out.suffix}'", ".star or .cs")
    if kind != particles.format:
        own = next((name for name, form in FORMATS.items() if form == particles.format), None)
        expected = "a table (.star or .cs) as input" if own is None else f"{own}, as the input is"
        raise InputError.of(out, "the extension", f"'{out.suffix}'", expected)


def write_table(particles: Particles, out: Path, place: Staging) -> None:
    """Write a table with all its columns, in its original version.

    Parameters
    ----------
    particles
        From a STAR file or a cryoSPARC table.
    out
        ``.star`` or ``.cs``, like the input.
    place
        Returns the temporary path of a file.

    Raises
    ------
    InputError
        If the particles come from a table of another kind.
    """
    check_format(out, particles)
    if particles.format == "star":
        write_star(place(out), particles.table, particles.optics, form=particles.form)
        return
    kinds = particles.form.dtype
    records = records_of(particles.table, np.dtype([]) if kinds is None else kinds)
    write_cs_records(place(out), records)
    table, group = files_of_table(out)
    place(group).write_text(_group(table.name, records.dtype.names or (), len(records)))


def path_notes(source: Source, out: Path) -> list[str]:
    """Return a note on the base folder of image paths if the new file has another folder.

    Raises
    ------
    InputError
        If the new folder holds another file under the name of a stack: it would be read instead.
    """
    if source.particles.format == "none" or source.path is None:
        return []
    return notes_of_paths(source.particles, source.path, out, source.datadir)


def notes_of_paths(
    particles: Particles, table: Path, out: Path, datadir: Path | None = None
) -> list[str]:
    """Return what :func:`path_notes` does, for particles of a ``table`` that go to ``out``."""
    here = out.absolute().parent
    named = any(particles.has(name) for name in NAMING)
    if not named or here == table.absolute().parent:
        return []
    every = set(image_references(particles)[0])
    names = [name for name in every if (here / name).is_file()]
    for name, path in find_files(names, table, datadir)[0].items():
        if not path.samefile(here / name):
            raise InputError(
                f"{out}: it would name the images {name} as {table} does, but {here / name} is "
                "another file of this name, expected another folder for the table"
            )
    base = table.absolute().parent if datadir is None else datadir
    start = f"start in another folder; where you use it, give --datadir {in_shell(base)}"
    if datadir is None and every and as_written(min(every), table) is None:
        start = f"are those of {table}; give the folder where they start as --datadir"
    return [f"image paths in {out} {start}"]


def _group(table: str, fields: tuple[str, ...], count: int) -> str:
    """Write the group by which cryoSPARC imports a table: the list of its results."""
    found = dict.fromkeys(name.split("/")[0] for name in fields if "/" in name)
    kinds = {name: next((k for p, k in KINDS if re.fullmatch(p, name)), name) for name in found}
    group = {
        "created": datetime.now(UTC).replace(tzinfo=None),
        "group": {
            "description": "Particles written by modpose",
            "name": "particles",
            "title": "Particles",
            "type": "particle",
        },
        "results": {
            name: {"metafile": f">{table}", "num_items": count, "type": f"particle.{kind}"}
            for name, kind in kinds.items()
        },
        "version": GROUP_VERSION,
    }
    return str(yaml.safe_dump(group, default_flow_style=False))
