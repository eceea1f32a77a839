"""Export a run to other programs: tables with poses, latents as CSV, upright images as MRCS.

Shifts in the latents are in pixels of the box that the model saw; tables describe the images
before cropping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.config.model import SpectralConfig
from modpose.data import preprocess
from modpose.data.fresh_table import fresh_particles, has_image_names
from modpose.data.optics import SIGN, image_sign
from modpose.data.particles import Particles
from modpose.data.posing import OUT_OF_PLANE, with_pose
from modpose.data.table_files import files_of_table, path_notes, write_table
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.files.writing import Staging, all_or_nothing, check_outputs, refuse_to_replace
from modpose.infer.latents import content_columns, rotations_of_table
from modpose.outputs import cryodrgn
from modpose.outputs.h5ad import write_h5ad
from modpose.outputs.upright import write_pictures
from modpose.run.added import how_added
from modpose.run.inputs import files_of_run

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.data.source import Source
    from modpose.data.tilt_posing import WrittenRows
    from modpose.run import Run

FORMATS = ("star", "cs", "csv", "mrcs", "h5ad", "pkl")
NAMED = "star, cs, csv, mrcs, h5ad or pkl"
ASKED = ("h5ad", "pkl")
"""Formats that are written only where they are named."""


@on_its_device
def export_run(
    run: Run,
    out: Path,
    formats: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    device: str | None = None,
) -> tuple[list[Path], list[str]]:
    """Write a run's results for other programs.

    Parameters
    ----------
    run
        A finished run.
    out
        A file ending in .star, .cs (with its .csg beside), .csv, .h5ad (AnnData) or .mrcs (the
        noise-free images then go beside the upright ones, in ``NAME_denoised.mrcs``), or a folder,
        created if missing.
    formats
        With a folder: any of ``star``, ``cs``, ``csv``, ``mrcs``, ``h5ad``, ``pkl`` (poses, CTF
        and index for cryoDRGN); when None those of the first four that apply.
    overwrite
        Replace existing files.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Returns
    -------
    written, notes
        The files, and sentences about what could not be written or should be known.

    Raises
    ------
    InputError
        A format is unknown or does not apply to the data, or a file already exists.
    """
    targets = _targets(out, formats, _came_as_cs(run))
    refuse_to_replace((path for paths in targets.values() for path in paths), overwrite)
    latents = run.latents()
    dataset = _dataset(run, latents, targets)
    reasons = {n: reason for n in targets if (reason := _why_not(n, run, dataset)) is not None}
    asked = formats is not None or not _is_folder(out)
    if reasons and asked:
        raise InputError(next(iter(reasons.values())))
    targets = {name: paths for name, paths in targets.items() if name not in reasons}
    if "pkl" in targets and dataset is not None:
        targets["pkl"] = [out / name for name in cryodrgn.names_for(dataset.source)]
    written = [path for paths in targets.values() for path in paths]
    opened = None if dataset is None else dataset.source
    check_outputs(written, overwrite, files_of_run(run, opened))
    notes = list(reasons.values())
    with all_or_nothing() as place:
        if "csv" in targets:
            write_latents(latents, place(targets["csv"][0]))
        if "h5ad" in targets:
            about = {"modpose": run.environment["modpose"], "recipe": run.config.recipe}
            write_h5ad(latents, place(targets["h5ad"][0]), about)
        if "mrcs" in targets and dataset is not None:
            places = [place(path) for path in targets["mrcs"]]
            write_pictures(PoseModel.load(run.path), dataset, latents, places)
        for name in ("star", "cs"):
            if name in targets and dataset is not None:
                notes += _write_poses(run, dataset, latents, targets[name][0], place)
        if "pkl" in targets and dataset is not None:
            sizes = _sizes(run, dataset)
            notes += cryodrgn.write_cryodrgn(
                dataset.source, latents, out, place, sizes.pixel_size_factor
            )
    return written, notes


def _came_as_cs(run: Run) -> bool:
    where = run.environment.get("input") if run.input is None else run.input
    first = where[0] if isinstance(where, list | tuple) else where
    return isinstance(first, str | Path) and Path(first).suffix.lower() in (".cs", ".csg")


def _sizes(run: Run, dataset: Dataset) -> preprocess.Geometry:
    stack = dataset.source.stack
    return preprocess.geometry(stack.shape, run.config.data, stack.name)


def _dataset(run: Run, latents: pd.DataFrame, targets: Iterable[str]) -> Dataset | None:
    """Open the images if a format needs them; None if the run no longer has them."""
    if set(targets) <= {"csv", "h5ad"} or not run.has_images:
        return None
    dataset = run.dataset()
    if len(latents) != dataset.n:
        found = f"{dataset.n} images"
        raise InputError.of(dataset.source.stack.name, "the input", found, f"{len(latents)}")
    return dataset


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _targets(
    out: Path, formats: Sequence[str] | None, with_cs: bool = False
) -> dict[str, list[Path]]:
    """Return the files of each format; without ``formats`` also a .cs if the input was one."""
    if not _is_folder(out):
        name = out.suffix.lower().removeprefix(".")
        if (
            name == "pkl"
            or name not in FORMATS
            or (formats is not None and list(formats) != [name])
        ):
            expected = (
                ".star, .cs, .csv, .h5ad or .mrcs, or a folder" if formats is None else formats[0]
            )
            raise InputError.of("export", f"the type of {out}", out.suffix, expected)
        denoised = out.with_name(f"{out.stem}_denoised.mrcs")
        return {name: [out, denoised] if name == "mrcs" else files_of_table(out)}
    for name in formats or ():
        if name not in FORMATS:
            raise InputError.of("export", "--format", name, NAMED)
    files = {
        "star": [out / "particles.star"],
        "cs": files_of_table(out / "particles.cs"),
        "csv": [out / "latents.csv"],
        "mrcs": [out / "aligned.mrcs", out / "denoised.mrcs"],
        "h5ad": [out / "latents.h5ad"],
        "pkl": [out / name for name in cryodrgn.NAMES],
    }
    wanted = formats or [n for n in files if n not in ASKED and (with_cs or n != "cs")]
    return {name: paths for name, paths in files.items() if name in wanted}


def _why_not(name: str, run: Run, dataset: Dataset | None) -> str | None:
    """Return why a format cannot hold these data; None if it can."""
    if name in ("csv", "h5ad"):
        return None
    no = f"no {name.upper()} is written"
    if dataset is None:
        return f"{run.path}: {no}, the run was fitted to an array in memory, which is not kept"
    stack = dataset.source.stack
    if name == "cs" and dataset.source.particles.format != "cs":
        return f"{stack.name}: {no}, for the input is no .cs, expected --format star"
    if name == "pkl" and len(stack.shape) != 2:
        return f"{stack.name}: {no}, the images are volumes, expected images as cryoDRGN has"
    if name == "star" and not has_image_names(dataset.source):
        return f"{stack.name}: {no}, for its images have no names that RELION reads"
    if name == "mrcs" and (stack.channels != 1 or len(dataset.shape) != 2):
        found = f"{stack.channels} channels" if stack.channels != 1 else "volumes"
        return f"{stack.name}: {no}, the images are {found}, expected grey images"
    if name == "mrcs" and isinstance(run.config.model.likelihood, SpectralConfig):
        return f"{run.path}: {no}, the model draws volumes; modpose volumes writes these"
    return None


# --- latents ----------------------------------------------------------------------------------


def write_latents(table: pd.DataFrame, out: Path, *, overwrite: bool = False) -> None:
    """Write a table of latents as ``.csv`` or ``.parquet``, whole or not at all.

    Raises
    ------
    InputError
        Another extension, or the file exists and ``overwrite`` is false.
    """
    check_table(out, overwrite)
    with all_or_nothing() as place:
        if out.suffix.lower() == ".csv":
            place(out).write_text(table.to_csv(index=False), encoding="utf-8")
        else:
            table.to_parquet(place(out), index=False)


def check_table(out: Path, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse a file that :func:`write_latents` could not write, or that is an input."""
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError.of(out, "the extension", repr(suffix), ".parquet or .csv")
    check_outputs([out], overwrite, inputs)


# --- tables -----------------------------------------------------------------------------------


def with_poses(
    particles: Particles,
    latents: pd.DataFrame,
    *,
    pixels_per_model_pixel: float = 1.0,
    pixel_size: float | None = None,
    added: Iterable[str] = (),
    tilts: WrittenRows | None = None,
    half: NDArray[np.int64] | None = None,
) -> Particles:
    """Put poses, classes and content into the table of the particles.

    Parameters
    ----------
    particles
        From a STAR file or a cryoSPARC table; every other column stays, in its place.
    latents
        One row per image, in the same order.
    pixels_per_model_pixel
        Side of a pixel that the model saw, in pixels of the images that the table names.
    pixel_size
        Å per pixel of those images, where the table does not say.
    added
        Names of the columns that were added to the run since the fit.
    tilts
        The rows of a table of tilt series, whose particles the latents are of; else None.
    half
        (N,) 0 or 1, the half sets of poses that come from another table; None keeps those that
        the table has.

    Returns
    -------
    The particles with the poses of the model (:func:`modpose.data.posing.with_pose`), where it
    infers any, in space where it infers reflection
    (:func:`modpose.infer.latents.rotations_of_table`); with ``rlnClassNumber`` (from 1) or
    ``alignments2D/class`` or ``alignments3D/class`` (from 0); in STAR files with
    ``modposeMirrored``, ``modposeScale`` and their certainty, and the added columns of numbers,
    ``pca_0`` as ``modposePca0``; and with content: ``modposeZ0``... or
    ``components_mode_0/value``....
    """
    n = len(latents)
    in_space = not {"r00", "mirrored"}.isdisjoint(latents)
    posed = in_space or "angle_deg" in latents or "shift_x" in latents
    axes = "xyz" if "shift_z" in latents else "xy"
    if posed:
        flat = not in_space and len(axes) == 2
        shifts = [np.broadcast_to(np.asarray(latents.get(f"shift_{a}", 0.0)), n) for a in axes]
        rotation = rotations_of_table(latents) if in_space else None
        shift = np.stack(shifts, axis=1) * pixels_per_model_pixel
        angle = np.broadcast_to(np.asarray(latents.get("angle_deg", 0.0)), n) if flat else None
        if tilts is None:
            particles = with_pose(
                particles,
                rotation=rotation,
                angle_deg=angle,
                shift=shift,
                half=half,
                pixel_size=pixel_size,
            )
        else:
            particles = tilts.posed(rotation, shift, pixel_size)
    if tilts is not None:
        latents = latents.iloc[tilts.row]
    table = particles.table.copy()
    relion = particles.format == "star"
    if "cluster" in latents:
        group = "alignments3D" if in_space else "alignments2D"
        name = "rlnClassNumber" if relion else f"{group}/class"
        table[name] = latents["cluster"].to_numpy() + relion
    old = [c for c in table if re.fullmatch(CONTENT, str(c))]
    table = table.drop(columns=[*old, *(name for name in OWN if name in table)])
    for name, latent in OWN.items():
        if relion and latent in latents:
            table[name] = latents[latent].to_numpy().round(6)
    for name in added if relion else ():
        if latents[name].dtype.kind in "iuf" and name != "cluster":
            table[own_name(name)] = latents[name].to_numpy()
    for name in content_columns(latents):
        values = latents[name].to_numpy()
        if relion:
            table[f"modposeZ{name[2:]}"] = values.round(6) + 0.0
        else:
            table[f"components_mode_{name[2:]}/component"] = np.uint32(name[2:])
            table[f"components_mode_{name[2:]}/value"] = values.astype(np.float32)
    return replace(particles, table=table)


OWN = {
    "modposeMirrored": "mirrored",
    "modposeMirroredProb": "mirrored_prob",
    "modposeScale": "scale",
    "modposeScaleStd": "scale_std",
}
"""STAR columns for values without a RELION name, and the columns of the latents."""


def own_name(name: str) -> str:
    """Name an added column in a STAR file: ``pca_0`` is ``modposePca0``."""
    return "modpose" + "".join(part[:1].upper() + part[1:] for part in name.split("_"))


CONTENT = r"modposeZ\d+|components_mode_\d+/(component|value)"
"""Columns of content, of this run or an earlier one."""


def _write_poses(
    run: Run, dataset: Dataset, latents: pd.DataFrame, out: Path, place: Staging
) -> list[str]:
    """Write the table of the input with the poses of the run; for other inputs, a STAR file."""
    source = dataset.source
    tilts = source.written_tilts()
    particles = source.particles if tilts is None else tilts.particles
    half = particles.given_halves
    notes = _ctf_notes(source)
    if out.suffix.lower() == ".star" and particles.format != "star":
        half = particles.half_sets()
        particles, notes = fresh_particles(source, out), []
    posed = with_poses(
        particles,
        latents,
        pixels_per_model_pixel=_sizes(run, dataset).pixel_size_factor,
        pixel_size=source.pixel_size,
        added=how_added(run.path),
        tilts=tilts,
        half=half,
    )
    write_table(posed, out, place)
    notes += _mark_notes(source) if out.suffix.lower() == ".star" else _scale_notes(latents)
    return _pose_notes(particles, latents) + notes + path_notes(source, out)


def _pose_notes(particles: Particles, latents: pd.DataFrame) -> list[str]:
    """Return notes about out-of-plane angles and mirrored images, which few programs support."""
    if "mirrored" in latents:
        return [
            f"{int(latents['mirrored'].sum())} of {len(latents)} images are mirrored and written "
            "as seen from behind (in RELION, rlnAngleTilt 180); programs for 2-D images do not "
            "read this, nor rlnIsFlip: give them the upright images (.mrcs)"
        ]
    posed = ("angle_deg" in latents or "shift_x" in latents) and "r00" not in latents
    if posed and particles.format == "star":
        lost = [c for c in OUT_OF_PLANE if c in particles.table and (particles.table[c] != 0).any()]
        if lost:
            return [
                f"{' and '.join(lost)} of {particles.name} are of another pose and set to 0: this "
                "run finds in-plane angles"
            ]
    return []


def _ctf_notes(source: Source) -> list[str]:
    """Return a note where the CTF came in a file of its own: the table keeps its columns."""
    particles = source.particles
    if particles.given_ctf is None or source.tilts is not None:
        return []
    return [f"the columns of the CTF are those of {particles.name}; give --ctf with it again"]


def _scale_notes(latents: pd.DataFrame) -> list[str]:
    """Return notes about values that a cryoSPARC table cannot hold."""
    return ["a .cs has no field for the scale: see latents.csv"] if "scale" in latents else []


def _mark_notes(source: Source) -> list[str]:
    """Return notes about values of a cryoSPARC table that a STAR file cannot hold."""
    if source.particles.format == "cs" and image_sign(source.particles) is not None:
        return [f"a STAR file has no {SIGN}: these images are of dark particles, invert them"]
    return []
