"""Gather what the sections of a report draw from: a sample of images, latents, truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.affinity.known import known_name
from modpose.data import preprocess
from modpose.data.dataset import dataset_of
from modpose.estimator import PoseModel
from modpose.evaluate.recovery import recover
from modpose.infer.latents import content_of_table
from modpose.outputs.content_maps import stored_content_maps
from modpose.plot import grids
from modpose.plot.figures import DisplayStyle
from modpose.report.material import KnownClasses, ReportData
from modpose.report.posed import look_at_posed
from modpose.report.probe import choose_probe
from modpose.report.volumes import look_at_volumes
from modpose.run.added import how_added

if TYPE_CHECKING:
    import pandas as pd

    from modpose.config import Config
    from modpose.data.dataset import Dataset
    from modpose.run import Run

Integers = NDArray[np.int64]
Floats = NDArray[np.floating]

MOST_IMAGES = 4000
MOST_BYTES = 256 * 2**20
"""Limits on the images read for averages and thumbnails: number, and bytes as float32."""
COMPARED = 16
"""Images shown beside their reconstruction."""


def gather(run: Run, latents: pd.DataFrame) -> ReportData:
    """Collect the arrays that the sections draw from."""
    config, environment = run.config, run.environment
    model = PoseModel.load(run.path)
    projected = model.vae.imaging.poses_given
    decode = _decoder(model, volumes=projected or len(environment["shape"]) == 3)
    names = set(map(str, latents.columns))
    sharp = stored_content_maps(run) if projected else None
    z = content_of_table(latents) if sharp is None else sharp.z
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
        prior = np.random.default_rng(config.seed).standard_normal((100, z.shape[1]))
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
        volumes=look_at_posed(run, model, z, sharp, dataset) if projected else None,
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
