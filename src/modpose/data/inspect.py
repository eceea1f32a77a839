"""Describe a file: its kind, its content, and what is missing.

Reads only headers and tables, no pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data import formats
from modpose.data.cistem import POSITION as CISTEM
from modpose.data.display import html_facts, stack_facts
from modpose.data.identity import IMAGE_COLUMNS
from modpose.data.image_files import image_references, open_stack, split_array_name
from modpose.data.locate import find_files, not_found
from modpose.data.mrc import is_mrc, read_header
from modpose.data.optics import aberrations, ctf_state, image_sign
from modpose.data.particles import TILT_RANGE, Particles, listed
from modpose.data.poses import check_shifts
from modpose.data.source import open_source
from modpose.data.stack import Kind, Stack
from modpose.data.star import (
    StarBlocks,
    columns_of,
    other_kind,
    particle_blocks,
    read_star,
    tilt_stack_reason,
)
from modpose.data.tables import TABLES, particles_of_star, read_particles
from modpose.data.tags import columns_in, unknown_columns
from modpose.data.tilt_posing import tilts_of_images
from modpose.data.tilt_series import TiltSeries, is_tilt_series, open_tilt_series
from modpose.data.unopened import Unopened, refuse_run
from modpose.errors import InputError
from modpose.files.writing import natural_key


@dataclass(frozen=True)
class Description:
    """Description of a file.

    Attributes
    ----------
    path
        The described file.
    kind
        Its kind, in a few words.
    facts
        Name and value of each fact, in reading order.
    problems
        What is missing or cannot be used, one sentence each.
    """

    path: str
    kind: str
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Format as lines of text."""
        width = max((len(name) for name in self.facts), default=0)
        lines = [f"{self.path}: {self.kind}"]
        lines += [f"  {name.ljust(width)}  {fact}" for name, fact in self.facts.items()]
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_facts(f"{self.path}: {self.kind}", self.facts, self.problems)


def describe(path: str | Path, datadir: Path | None = None, kind: Kind = "auto") -> Description:
    """Describe a file: kind, particles, optics groups, box, pixel size, poses, CTF.

    Parameters
    ----------
    path
        A file, a folder, or ``stack.npz:name``.
    datadir
        First folder in which the images of a table are searched.
    kind
        Meaning of the axes of an array: a word, or letters such as ``NCYX``.

    Raises
    ------
    InputError
        If the file is malformed or of unknown kind.
    """
    file, array = split_array_name(Path(path))
    suffix = file.suffix.lower()
    if suffix in TABLES and kind != "auto":
        expected = "none for a table, whose images have axes of their own"
        raise InputError.of(file, "--axes", f"'{kind}'", expected)
    if suffix == ".star":
        return _star(file, datadir)
    if suffix in TABLES:
        kind = "a CSV table" if suffix == ".csv" else "a cryoSPARC table of particles"
        return _particles(file, kind, read_particles(file), datadir)
    if file.is_dir() and suffix != ".zarr":
        refuse_run(file)
        return _folder(file, kind)
    if suffix == ".npz" and array is None:
        return _archive(file)
    stack = open_stack(file, array, kind)
    facts = stack_facts(stack)
    if is_mrc(file):
        header = read_header(file)
        facts["space group"] = str(header.space_group)
        if header.axes != (1, 2, 3):
            facts["axis order"] = f"MAPC, MAPR, MAPS = {header.axes}; reordered to z, y, x"
    return Description(str(path), _stack_kind(stack), facts, _stack_problems(stack))


# --- stacks -----------------------------------------------------------------------------------


def _stack_kind(stack: Stack) -> str:
    what = "volume" if len(stack.shape) == 3 else "colour image" if stack.channels == 3 else "image"
    single = f"an {what}" if what == "image" else f"a {what}"
    return single if stack.n == 1 else f"a stack of {what}s"


def _stack_problems(stack: Stack) -> list[str]:
    if len(stack.shape) == 3 and len(set(stack.shape)) != 1:
        return ["the volumes are not cubes; crop them to fit (data.crop)"]
    return []


LISTED = 8
"""Files of a folder that are described one by one."""


def _folder(path: Path, kind: Kind) -> Description:
    try:
        source = open_source(path, kind=kind)
    except InputError as error:
        files = sorted(filter(is_mrc, path.iterdir()), key=lambda file: natural_key(file.name))
        if not files:
            raise
        return Description(str(path), "a folder", _each(files, kind), [str(error)])
    facts = stack_facts(source.stack)
    if source.particles.has("folder"):
        folders = np.unique(source.particles.column("folder").astype(str))
        facts["sub-folders"] = ", ".join(folders[:8].tolist())
    pictures = isinstance(source.stack, formats.PictureStack)
    what = "a folder of pictures" if pictures else "a folder of stacks or volumes"
    if not pictures:
        names = dict.fromkeys(map(str, source.particles.column("file")))
        facts |= _each([path / name for name in names], kind)
    return Description(str(path), what, facts, _stack_problems(source.stack))


def _each(files: list[Path], kind: Kind) -> dict[str, str]:
    """Describe each of some files in a line; of many, the first."""
    facts = {}
    for file in files[:LISTED]:
        try:
            about = stack_facts(open_stack(file, None, kind))
        except InputError as error:
            facts[file.name] = str(error)
            continue
        size = about["pixel size"]
        count = next(f"{n} {what}" for what, n in about.items() if what in ("images", "volumes"))
        count = count.removesuffix("s") if count.startswith("1 ") else count
        facts[file.name] = f"{count} of {about['box']}, pixel size {size}"
    if len(files) > LISTED:
        facts["..."] = f"{len(files) - LISTED} more files"
    return facts


def _archive(path: Path) -> Description:
    facts = {
        name: f"{dtype} {' x '.join(str(side) for side in shape) or 'single value'}"
        for name, (shape, dtype) in formats.npz_arrays(path).items()
    }
    return Description(str(path), f"a NumPy archive; name an array, as in {path.name}:NAME", facts)


# --- tables -----------------------------------------------------------------------------------


def _star(path: Path, datadir: Path | None) -> Description:
    blocks = read_star(path)
    found = particle_blocks(blocks)
    if not found and is_tilt_series(path):
        try:
            facts = _series_facts(open_tilt_series(path, None, datadir))
        except InputError as error:
            return Description(str(path), other_kind(blocks), _block_facts(blocks), [str(error)])
        return Description(str(path), f"{other_kind(blocks)} of tilt series", facts)
    if not found:
        problems = ["it lists no particle images, so it cannot be fitted"]
        return Description(str(path), other_kind(blocks), _block_facts(blocks), problems)
    if len(found) > 1:
        listed = " and ".join(f"data_{block}" for block in found)
        problems = [f"both {listed} list particles, so it is unclear which to fit"]
        kind = "a STAR file with several tables of particles"
        return Description(str(path), kind, _block_facts(blocks), problems)
    particles = particles_of_star(blocks, str(path))
    tilt = tilt_stack_reason(blocks)
    if tilt is None:
        return _particles(path, _star_kind(particles), particles, datadir)
    kind = f"subtomograms as 2-D tilt-series stacks, RELION 5 or WarpTools ({tilt})"
    made = _particles(path, kind, particles, datadir)
    try:
        own = _series_facts(open_tilt_series(path, None, datadir))
    except InputError as error:
        return replace(made, problems=list(dict.fromkeys([*made.problems, str(error)])))
    return replace(made, facts=made.facts | own)


def _series_facts(series: TiltSeries) -> dict[str, str]:
    """Say what is read of tilt series: particles, images, box, tilts, poses and CTF."""
    source, counts = series.images, np.bincount(series.particle, minlength=series.n)
    fewest, most = int(counts.min()), int(counts.max())
    each = f"{most}" if fewest == most else f"{fewest} to {most}"
    along = tilts_of_images(series)[:, 2, 2].clip(-1, 1)
    size = source.pixel_size
    facts = {"particles": f"{series.n:,}"}
    facts |= {k: v for k, v in stack_facts(source.stack).items() if k in ("images", "box", "type")}
    facts["tilts"] = f"{each} a particle, up to {np.rad2deg(np.arccos(along.min())):.0f} degrees"
    facts["pixel size"] = "unknown" if size is None else f"{size:.4g} A"
    facts["poses"] = "none" if series.rotation is None else "3-D rotations in the tomogram"
    facts["CTF"] = _ctf(source.particles, source.stack.pixel_size)
    return facts


def _star_kind(particles: Particles) -> str:
    of = "particles"
    if particles.has(CISTEM):
        return "a cisTEM table of particles"
    if particles.has("rlnImageDimensionality"):
        if str(particles.column("rlnImageDimensionality")[0]) == "3":
            of = "subtomograms"
    elif particles.has("rlnCtfImage") or particles.has("rlnCoordinateZ"):
        of = "subtomograms"
    version = "3.1 or later" if particles.has("rlnOpticsGroup") else "3.0 or earlier"
    return f"a RELION table of {of} (as of version {version})"


def _block_facts(blocks: StarBlocks) -> dict[str, str]:
    facts = {}
    for name, block in blocks.items():
        columns = columns_of(block)
        listed = ", ".join(columns[:6]) + (" ..." if len(columns) > 6 else "")
        size = "" if isinstance(block, dict) else f"{len(block):,} rows of "
        facts[f"data_{name}"] = f"{size}{listed}"
    return facts


def _particles(path: Path, kind: str, particles: Particles, datadir: Path | None) -> Description:
    facts = {"particles": f"{particles.n:,}", "columns": str(particles.table.shape[1])}
    problems: list[str] = []
    if particles.optics is not None:
        facts["optics groups"] = str(len(particles.optics))
    stack = _image_facts(path, kind, particles, datadir, facts, problems)
    of_stack = None if stack is None else stack.pixel_size
    facts["pixel size"] = _try(lambda: _pixel_size(particles, of_stack), problems)
    facts["poses"] = _try(lambda: _poses(particles, of_stack, stack), problems)
    facts["CTF"] = _try(lambda: _ctf(particles, of_stack), problems)
    facts |= _try_marks(particles, problems)
    if particles.has(TILT_RANGE[0]):
        facts["missing wedge"] = _try(lambda: _wedge(particles), problems)
    truth = particles.truth()
    if truth is not None:
        facts["simulated truth"] = ", ".join(map(str, truth.columns))
    return Description(str(path), kind, facts, list(dict.fromkeys(problems)))


def _image_facts(
    path: Path,
    kind: str,
    particles: Particles,
    datadir: Path | None,
    facts: dict[str, str],
    problems: list[str],
) -> Stack | None:
    """Search the images of a table; report what was found, and open them if all exist."""
    if particles.format == "csv" and not any(particles.has(c) for c in IMAGE_COLUMNS):
        problems.append(f"it names no images (a column {', '.join(IMAGE_COLUMNS)})")
        return None
    names, _ = image_references(particles)
    try:
        found, missing = find_files(names, path, datadir)
    except InputError as error:
        problems.append(str(error))
        return None
    facts["image files"] = f"{len(found) + len(missing):,}, {len(missing):,} of them not found"
    if missing:
        problems.append(not_found(missing, len(found), path))
        return None
    if kind.startswith("subtomograms as 2-D"):
        return None
    try:
        stack = Unopened(particles, path, (path,), datadir=datadir).stack()
    except InputError as error:
        problems.append(str(error))
        return None
    facts |= {k: v for k, v in stack_facts(stack).items() if k in ("box", "type")}
    problems += _stack_problems(stack)
    return stack


def _try(fact: Callable[[], str], problems: list[str]) -> str:
    """Evaluate a fact; an error becomes a problem."""
    try:
        return fact()
    except InputError as error:
        problems.append(str(error))
        return "incomplete"


def _pixel_size(particles: Particles, of_stack: float | None) -> str:
    if particles.pixel_size() is not None:  # raises where particles differ
        return f"{particles.pixel_size():.4g} A"
    return "unknown" if of_stack is None else f"{of_stack:.4g} A (from the stack)"


def _poses(particles: Particles, of_stack: float | None, stack: Stack | None) -> str:
    poses = particles.poses(of_stack)
    if poses is None:
        return "none"
    rotation, shift = poses
    origins = [c for c in map(str, particles.table.columns) if c.startswith("rlnOrigin")]
    origins += ["alignments3D/shift"] if particles.has("alignments3D/shift_0") else []
    text = "in-plane angles" if _in_plane(rotation) else "3-D rotations"
    largest = float(np.abs(shift).max(initial=0.0))
    if stack is not None:
        check_shifts(shift, max(stack.shape), particles.name)
    return f"{text}, {f'shifts up to {largest:.3g} px' if origins else 'no shifts'}"


def _in_plane(rotation: NDArray[Any]) -> bool:
    return bool(np.allclose(rotation[:, 2, 2], 1.0))


def _wedge(particles: Particles) -> str:
    limits = particles.tilt_range()
    assert limits is not None
    low, high = limits.min(axis=0), limits.max(axis=0)
    if (low == high).all():
        return f"outside tilts of {low[0]:g} to {low[1]:g} degrees"
    return f"outside tilts of {low[0]:g} ... {high[0]:g} to {low[1]:g} ... {high[1]:g} degrees"


def _try_marks(particles: Particles, problems: list[str]) -> dict[str, str]:
    """Report the earlier processing of the images, if any."""
    try:
        marks = list(_marks(particles))
    except InputError as error:
        problems.append(str(error))
        return {}
    unknown = unknown_columns(columns_in(particles)) if particles.format != "csv" else []
    facts = {"images": "; ".join(marks)} if marks else {}
    return facts | ({"unknown columns": listed(unknown)} if unknown else {})


def _marks(particles: Particles) -> Iterator[str]:
    state, sign, found = ctf_state(particles), image_sign(particles), aberrations(particles)
    if state is not None and (state == 1).any():
        yield "phases were flipped"
    if state is not None and (state == 2).any():
        yield "multiplied by their CTF"
    if sign is not None:
        yield "particles are dark (blob/sign)"
    if found.odd is not None:
        yield "beam tilt or odd aberrations"
    if found.even is not None or found.phases is not None:
        yield "aberrations that are not modelled (see fit)"
    if found.magnification is not None:
        yield "anisotropic magnification"


def _ctf(particles: Particles, of_stack: float | None) -> str:
    ctf = particles.ctf(of_stack)
    if ctf is None:
        return "none"
    defocus = ctf[:, 1:3].mean(axis=1) / 1e4
    voltages = ", ".join(f"{v:g}" for v in np.unique(ctf[:, 4])[:3])
    return (
        f"defocus {defocus.min():.3g} to {defocus.max():.3g} um, {voltages} kV, "
        f"Cs {ctf[0, 5]:g} mm, amplitude contrast {ctf[0, 6]:.3g}"
    )
