"""Write the report of a run folder: all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.affinity.known import known_name
from modpose.data import preprocess
from modpose.data.dataset import dataset_of
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.evaluate.recovery import recover
from modpose.files.locks import writing
from modpose.files.writing import all_or_nothing, holds_files, refuse_to_replace
from modpose.infer.latents import content_columns
from modpose.plot import grids
from modpose.plot.figures import DisplayStyle
from modpose.plot.html import Section, render
from modpose.progress import bar
from modpose.report import kin, sections, summary
from modpose.report.conformations import beside_predictions, conformations
from modpose.report.equivariance import equivariance
from modpose.report.material import KnownClasses, ReportData
from modpose.report.probe import choose_probe
from modpose.report.symmetry import symmetry
from modpose.report.truth import truth
from modpose.report.volumes import look_at_volumes, space
from modpose.run import Run
from modpose.run.added import how_added
from modpose.run.report_files import MANIFEST, PAGE, files_of_report, manifest

if TYPE_CHECKING:
    import pandas as pd

    from modpose.config import Config
    from modpose.data.dataset import Dataset
    from modpose.run import Run
    from modpose.run.reopen import Given

Integers = NDArray[np.int64]
Floats = NDArray[np.floating]

SCATTER_POINTS = 5000
"""Points of the scatter, and images that t-SNE sees."""
MOST_IMAGES = 4000
MOST_BYTES = 256 * 2**20
"""Limits on the images read for averages and thumbnails: number, and bytes as float32."""
COMPARED = 16
"""Images shown beside their reconstruction."""


def build_report(
    run: str | Path,
    *,
    overwrite: bool = True,
    quiet: bool = False,
    input: Given = None,
    datadir: Path | None = None,
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
        "content": lambda: sections.content(material, points),
        "truth": lambda: truth(material),
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


# --- what the run holds -----------------------------------------------------------------------


def gather(run: Run, latents: pd.DataFrame) -> ReportData:
    """Collect the arrays that the sections draw from."""
    config, environment = run.config, run.environment
    model = PoseModel.load(run.path)
    projected = model.vae.imaging.poses_given
    decode = _decoder(model, volumes=projected or len(environment["shape"]) == 3)
    names, content = set(map(str, latents.columns)), content_columns(latents)
    z = latents[content].to_numpy(float).reshape(len(latents), len(content))
    dataset = _encoded_images(run, latents) if run.has_images else None
    rows, images, posed, known = _images(dataset, model, len(latents), config.seed)
    columns: dict[str, NDArray[Any]] = {
        str(k): latents[k].to_numpy()
        for k in dict.fromkeys(("label", "cluster", *how_added(run.path)))
        if k in names
    }
    if projected:
        predicted = posed
    else:
        prior = np.random.default_rng(config.seed).standard_normal((100, len(content)))
        predicted = decode(np.concatenate([z[rows[:100]], prior]))
    turned = config.model.rotation.inferred and "angle_deg" in names
    shifted = config.model.shift.inferred and {"shift_x", "shift_y"} <= names
    return ReportData(
        look=_look(config, images, predicted, environment.get("pixel_size")),
        decode=decode,
        z=z,
        elbo=latents["elbo"].to_numpy(float),
        index=latents["index"].to_numpy(),
        rows=rows,
        images=images if len(rows) else predicted[:0],
        posed=posed,
        metrics={str(name): column.to_numpy() for name, column in run.metrics().items()},
        angle_deg=latents["angle_deg"].to_numpy(float) if turned else None,
        angle_std_deg=latents["angle_std_deg"].to_numpy(float) if turned else None,
        shift_px=latents[["shift_x", "shift_y"]].to_numpy(float) if shifted else None,
        mirrored=latents["mirrored"].to_numpy() == 1 if "mirrored" in names else None,
        scale=latents["scale"].to_numpy(float) if "scale" in names else None,
        columns=columns,
        further=_further(latents, dataset),
        truth=None if known is None else {str(k): column.to_numpy() for k, column in known.items()},
        recovery=() if known is None else _recovery(latents, known),
        shift_prior_px=config.model.shift.std(max(environment["shape"])) if shifted else None,
        pixel_size=environment.get("pixel_size"),
        flat=len(environment["shape"]) == 2 and not projected,
        volumes=model.decode if projected else None,
        probe=None
        if dataset is None or projected
        else choose_probe(model.vae, dataset, columns, len(latents)),
        space=None if dataset is None else look_at_volumes(model, dataset, latents, known),
        kin=_kin(run, model, latents),
        seed=config.seed,
    )


def _encoded_images(run: Run, latents: pd.DataFrame) -> Dataset:
    """Open the images of the table of latents."""
    dataset = run.dataset()
    if not run.partial:
        return dataset
    source = dataset.source.subset(latents["index"].to_numpy())
    return dataset_of(source, run.config, held_out=False, value_range=dataset.value_range)


def _further(
    latents: pd.DataFrame, dataset: Dataset | None
) -> Callable[[Integers], dict[str, NDArray[Any]]]:
    """Return a function that reads, of some rows, the columns that no other colour shows.

    They are those of the latents, then those of the input's table with its optics groups.
    """
    shown = {"index", "mirrored", "scale", "angle_deg", "elbo"}
    table = None if dataset is None else dataset.source.particles

    def columns(rows: Integers) -> dict[str, NDArray[Any]]:
        own = {str(name): latents[name].to_numpy() for name in latents if str(name) not in shown}
        given = [] if table is None else [n for n in table.columns() if n not in latents]
        found = own | {name: table.column(name) for name in given if table is not None}
        return {name: column[rows] for name, column in found.items() if column.ndim == 1}

    return columns


def _kin(run: Run, model: PoseModel, latents: pd.DataFrame) -> KnownClasses | None:
    """Collect known classes, affinities and the pose channel."""
    width = run.config.model.pose_channel
    if "label" not in latents and not width:
        return None
    labels = latents["label"].tolist() if "label" in latents else [None] * len(latents)
    known, volumes = run.known_affinity(), len(run.environment["shape"]) == 3

    def draw(z: Floats, channel: Floats) -> Floats:
        pictures = np.asarray(model.decode(z.astype(np.float32), channel.astype(np.float32)))
        return grids.volume_pictures(pictures) if volumes else pictures

    return KnownClasses(
        labels=np.array([known_name(label) or "" for label in labels]),
        held_out=latents["split"].to_numpy() == "val",
        affinity=None if known is None else known.classes,
        channel=latents[[f"pose_{k}" for k in range(width)]].to_numpy(float) if width else None,
        draw=draw if width else None,
    )


def _decoder(model: PoseModel, volumes: bool) -> Callable[[Floats], Floats]:
    def decode(z: Floats) -> Floats:
        pictures = np.asarray(model.decode(z.astype(np.float32)))
        return grids.volume_pictures(pictures) if volumes else pictures

    return decode


def _images(
    dataset: Dataset | None, model: PoseModel, n: int, seed: int
) -> tuple[Integers, Floats, Floats, pd.DataFrame | None]:
    """Read a random sample: rows, pictures, posed predictions of the first, and the truth."""
    if dataset is None:
        nothing = np.empty((0, 1, 1), np.float32)
        return np.empty(0, np.int64), nothing, nothing, None
    size = 4 * dataset.channels * int(np.prod(dataset.shape))
    count = min(n, MOST_IMAGES, max(100, MOST_BYTES // size))
    rows = np.random.default_rng(seed).permutation(n)[:count]
    images = read_pictures(dataset, rows)
    return rows, images, _posed(model, dataset, rows[:COMPARED]), known_truth(dataset)


def read_pictures(dataset: Dataset, rows: Integers, chunk: int = 256) -> Floats:
    """Read images in the order of the stack, and give them as pictures in the order of rows."""
    order = np.argsort(rows, kind="stable")
    parts = []
    for start in range(0, len(rows), chunk):
        batch = dataset.batch(rows[order[start : start + chunk]])
        parts.append(grids.as_pictures(batch.image.numpy()))
    pictures = np.concatenate(parts)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.asarray(pictures[back])


def _posed(model: PoseModel, dataset: Dataset, rows: Integers) -> Floats:
    """Draw the model's noise-free version of some images, in their inferred pose."""
    batch = dataset.batch(rows).to(model.device)
    values = model.vae.reconstruct(batch).cpu().numpy()
    return grids.as_pictures(np.moveaxis(values, -1, 1))


def known_truth(dataset: Dataset) -> pd.DataFrame | None:
    """Return the truth of each image; shifts are in pixels of the box that the model sees."""
    known = dataset.source.particles.truth()
    if known is None:
        return None
    stack = dataset.source.stack
    sizes = preprocess.geometry(stack.shape, dataset.config, stack.name)
    shifts = [name for name in ("shift_x", "shift_y", "shift_z") if name in known]
    known[shifts] = known[shifts] / sizes.pixel_size_factor
    return known


def _recovery(latents: pd.DataFrame, known: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Split the sentences about recovery into name and value."""
    lines = (line.partition(": ") for line in recover(latents, known).lines()[1:])
    return tuple((name, value) for name, _, value in lines)


def _look(
    config: Config, images: Floats, predicted: Floats, pixel_size: float | None
) -> DisplayStyle:
    """Choose grey levels and orientation; images scaled to [0, 1] are natural images."""
    natural = config.data.normalize == "range" or images.ndim == 4
    origin: grids.Origin = "upper" if natural else "lower"
    if config.data.normalize == "range" or config.model.likelihood.kind == "bernoulli":
        return DisplayStyle((0.0, 1.0), (0.0, 1.0), origin, pixel_size)
    levels = grids.grey_range(images), grids.grey_range(predicted, 0.1)
    return DisplayStyle(*levels, origin, pixel_size)


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
        material.z,
        material.angle_std_deg,
        material.shift_px,
        min(environment["shape"]),
    )
    if run.partial:
        notes.append(
            f"Only {len(latents):,} of {environment['n']:,} images are encoded, because the fit "
            f"was short. The report shows these. Encode the rest with: modpose resume {run.path}"
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
