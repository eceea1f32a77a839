"""Write the report of a run folder: all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.content_maps.rigid import doubt_about_poses
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.files.locks import writing
from modpose.files.text import in_shell
from modpose.files.writing import all_or_nothing, holds_files, refuse_to_replace
from modpose.infer.latents import content_of_table
from modpose.plot.html import Section, render
from modpose.progress import bar
from modpose.report import kin, sections, summary
from modpose.report.conformations import beside_predictions, conformations, surface
from modpose.report.equivariance import equivariance
from modpose.report.gather import gather
from modpose.report.material import ReportData
from modpose.report.orientations import orientations
from modpose.report.resolution import resolution
from modpose.report.symmetry import symmetry
from modpose.report.truth import truth
from modpose.report.volumes import space
from modpose.run import Run
from modpose.run.report_files import MANIFEST, PAGE, files_of_report, manifest

if TYPE_CHECKING:
    import pandas as pd

    from modpose.run.reopen import Given

Integers = NDArray[np.int64]

SCATTER_POINTS = 5000
"""Points of the scatter, and images that t-SNE sees."""


@on_its_device
def build_report(
    run: str | Path,
    *,
    overwrite: bool = True,
    quiet: bool = False,
    input: Given = None,
    datadir: Path | None = None,
    device: str | None = None,
) -> Path:
    """Draw the report of a finished run into its folder ``report/``.

    Parameters
    ----------
    run
        The run folder.
    overwrite
        Replace a report that already exists.
    quiet
        No progress bar.
    input, datadir
        New place of the images, if they were moved (:meth:`modpose.run.Run.dataset`).
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Returns
    -------
    The page, ``RUN/report/index.html``; the figures stand beside it as PNG files.

    Raises
    ------
    InputError
        If the folder is not a finished run, its images are missing, or other files are where the
        report should go.
    """
    opened = Run.open(run, input=input, datadir=datadir)
    folder = opened.path / "report"
    with writing(opened.path):  # so that no other run replaces it in the meantime
        _check_target(folder, overwrite)
        latents = opened.latents(partial=True)
        material = gather(opened, latents)
        rng = np.random.default_rng(opened.config.seed)
        points = _scatter_points(len(latents), material.rows, rng)
        made = make_sections(material, points, quiet)
        page = _page(opened, material, latents, made)
        _write(folder, page, made)
    return folder / "index.html"


def make_sections(material: ReportData, points: Integers, quiet: bool) -> list[Section]:
    """Make every section for which the run has data, with a progress bar."""
    made = []
    makers = _volume_makers(material, points) if material.volumes else _makers(material, points)
    with bar(makers.items(), "report", "section", quiet=quiet) as shown:
        for name, make in shown:
            shown.set_postfix_str(name)
            made.append(make())
    return [section for section in made if section is not None]


Makers = dict[str, Callable[[], Section | None]]


def _volume_makers(material: ReportData, points: Integers) -> Makers:
    """Sections of a model of volumes whose projections have given poses."""
    return {
        "conformations": lambda: conformations(material),
        "surface": lambda: surface(material),
        "resolution": lambda: resolution(material),
        "content": lambda: sections.content(material, points),
        "truth": lambda: truth(material),
        "orientations": lambda: orientations(material),
        "reconstructions": lambda: beside_predictions(material),
        "learning curves": lambda: sections.learning(material),
    }


def _makers(material: ReportData, points: Integers) -> Makers:
    return {
        "reconstructions": lambda: sections.reconstructions(material),
        "average": lambda: sections.average(material),
        "space": lambda: space(material.space, material.pixel_size),
        "truth": lambda: truth(material),
        "manifold": lambda: sections.manifold(material),
        "content": lambda: sections.content(material, points),
        "classes": lambda: kin.classes(material),
        "affinities": lambda: kin.affinities(material),
        "clusters": lambda: sections.clusters(material),
        "traversals": lambda: sections.traversals(material),
        "pose channel": lambda: kin.pose_traversals(material),
        "interpolations": lambda: sections.interpolations(material),
        "corners": lambda: kin.corners(material),
        "samples": lambda: sections.samples(material),
        "poses": lambda: sections.pose(material),
        "symmetry": lambda: symmetry(material),
        "equivariance": lambda: equivariance(material),
        "learning curves": lambda: sections.learning(material),
    }


def _scatter_points(n: int, rows: Integers, rng: np.random.Generator) -> Integers:
    """Choose the points of the scatter: first the images that were read, then other images."""
    others = np.setdiff1d(np.arange(n), rows)
    return np.concatenate([rows, rng.permutation(others)])[:SCATTER_POINTS]


# --- the page ---------------------------------------------------------------------------------


def _page(run: Run, material: ReportData, latents: pd.DataFrame, made: list[Section]) -> str:
    """Render the page."""
    environment = run.environment
    counts = latents["split"].value_counts()
    names = {"train": "for training", "val": "held out"}
    split = {text: int(counts[name]) for name, text in names.items() if name in counts}
    source = environment.get("input")
    first = source[0] if isinstance(source, list) else source
    title = Path(first).name if first else run.path.resolve().name
    subtitle = f"Recipe {run.config.recipe}, modpose {environment.get('modpose', '')}."
    facts = summary.facts(run.config, environment, material.metrics, split)
    notes = [alarm.sentence for alarm in run.alarms]
    notes += summary.notes(
        material.metrics,
        content_of_table(latents),
        material.angle_std_deg,
        material.shift_px,
        min(environment["shape"]),
    )
    sharp = None if material.volumes is None else material.volumes.sharp
    doubt = None if sharp is None else doubt_about_poses(sharp)
    notes += [] if doubt is None else [doubt]
    if run.partial:
        notes.append(
            f"Only {len(latents):,} of {environment['n']:,} images are encoded, because the fit "
            "was short. The report shows these. Encode the rest with: "
            f"modpose resume {in_shell(run.path)}"
        )
    if not source:
        notes.append("The run was fitted to an array in memory, so no real image is shown.")
    return render(title, subtitle, facts, notes, made)


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (holds_files(folder) and files_of_report(folder) is None):
        raise InputError(f"{folder}: this file is no report, but the report should be written here")
    refuse_to_replace([folder / PAGE], overwrite)


def _write(folder: Path, page: str, made: list[Section]) -> None:
    """Write page and figures; replace only files of an earlier report."""
    pictures = {picture.name: picture.png for section in made for picture in section.pictures}
    files = {name: pictures[name] for name in sorted(pictures)} | {PAGE: page.encode()}
    folder.mkdir(exist_ok=True)
    try:
        with writing(folder):
            _replace(folder, files)
    finally:
        with suppress(OSError):  # only if nothing was written
            folder.rmdir()


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    earlier = files_of_report(folder) or []
    foreign = (folder / name for name in files if folder / name not in earlier)
    there = next((path for path in foreign if os.path.lexists(path)), None)
    if there is not None:
        raise InputError(
            f"{there}: is not a file of a report, but a figure needs this name; move it"
        )
    with all_or_nothing() as place:
        place(folder / MANIFEST).write_text(manifest(list(files)), encoding="utf-8")
        for name, content in files.items():
            place(folder / name).write_bytes(content)
        for path in earlier:
            place.remove(path)
