"""The analysis of a run's content as one folder of tables, pictures and maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs
from modpose.devices import on_its_device
from modpose.estimator import PoseModel
from modpose.evaluate.drawing import check_draws_volumes
from modpose.files.writing import Staging, all_or_nothing, check_outputs
from modpose.fourier.fsc import read_map
from modpose.jobs.hand import mirrored
from modpose.outputs.chimerax import series_script
from modpose.outputs.columns import CLUSTER, content_of, error_of_content
from modpose.outputs.landscape import Analysis, analyze_content
from modpose.outputs.volumes import Stops, write_volumes
from modpose.plot.html import Picture
from modpose.plot.landscape import free_energy_map, path_profile
from modpose.progress import Progress
from modpose.run.added import add_columns, check_names
from modpose.run.inputs import files_of_run

if TYPE_CHECKING:
    from modpose.content_maps import ContentMaps
    from modpose.run import Run

SAMPLES = 100
"""Maps of which the variance is taken; its standard error is the square root of 2/99, 14 %."""
COLUMNS = ("free_energy", "path_position", "path_distance")
FILES = ("free-energy.csv", "free-energy.png", "clusters.csv", "path.csv", "path.png")
OF_MAPS = ("variance.mrc", "series.cxc")
SUMMARY = "summary.txt"


@on_its_device
def analyze_run(
    run: Run,
    out: Path,
    *,
    k: int | None = None,
    path: str | None = None,
    steps: int = 10,
    seed: int | None = None,
    content_maps: ContentMaps | None = None,
    flip_hand: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    device: str | None = None,
) -> Analysis:
    """Analyse the content of a run, and write one folder of tables, pictures and maps.

    Parameters
    ----------
    run
        A finished run.
    out
        Folder: ``free-energy.csv`` and ``.png``, ``clusters.csv``, ``path.csv`` and ``.png``,
        ``summary.txt``; where the model draws volumes also ``series/`` (maps along the path),
        ``series.cxc`` (opens them as a movie in ChimeraX), ``clusters/`` (a map for each) and
        ``variance.mrc``.
    k, path, steps, seed
        See :func:`modpose.outputs.landscape.analyze_content`.
    content_maps
        Sharp maps of the run (:func:`modpose.outputs.content_maps.content_maps_of`): their content
        is analysed, and they are drawn, with what stands beside them in
        :func:`modpose.outputs.volumes.write_volumes`.
    flip_hand
        Mirror the maps (along z, about the centre n // 2).
    overwrite
        Replace existing files and columns.
    quiet
        No progress bars.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Returns
    -------
    Analysis
        The run also gets its columns, and ``cluster`` where that is new.

    Raises
    ------
    InputError
        As :func:`modpose.outputs.landscape.analyze_content`; a file or column already exists; or
        the maps of a model that draws pictures are to be mirrored.
    """
    clustered = k is not None or CLUSTER not in run.latents()
    new = (*COLUMNS, CLUSTER) if clustered else COLUMNS
    check_names(run, new, overwrite=overwrite)
    targets = [out / name for name in (*FILES, *OF_MAPS, SUMMARY)]
    check_outputs(targets, overwrite, files_of_run(run))
    model = PoseModel.load(run.path)
    if flip_hand:
        check_draws_volumes(run, model)
    found = analyze_content(run, k=k, path=path, steps=steps, seed=seed, content_maps=content_maps)
    draws = model.vae.imaging.shown_in == 3
    written = []
    if draws:
        written = _write_maps(run, found, out, content_maps, flip_hand, overwrite, quiet)
    with all_or_nothing() as place:
        for target in targets:
            place.remove(target)  # of an earlier analysis, unless written again
        if draws:
            if content_maps is not None:
                variance = content_maps.variance()
            else:
                start = run.config.seed if seed is None else seed
                of_model = content_of(run), error_of_content(run.latents())
                variance = map_variance(model, *of_model, start, quiet)
            variance = mirrored(variance) if flip_hand else variance
            size = run.environment.get("pixel_size")
            write_mrcs(place(out / "variance.mrc"), variance[None], size)
        if written:
            names = [path.relative_to(out).as_posix() for path in written]
            script = series_script(names, read_map(written[0])[0])
            place(out / "series.cxc").write_text(script, encoding="utf-8")
        _write_tables(found, out, place)
    columns = found.columns | ({CLUSTER: found.labels} if clustered else {})
    add_columns(run, columns, "modpose analyze", overwrite=overwrite)
    return found


def map_variance(
    model: PoseModel,
    z: NDArray[np.floating],
    spread: NDArray[np.floating],
    seed: int,
    quiet: bool = False,
) -> NDArray[np.float32]:
    """Variance of the model's map over images, at each voxel.

    Parameters
    ----------
    model
        A model that draws volumes.
    z, spread
        (N, d) content of images and its standard deviation; the maps of 100 random images are
        drawn, each at a sample from its posterior.
    seed
        Of images and samples.
    quiet
        No progress bar.

    Returns
    -------
    array
        (D, D, D); its standard error is 14 %.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(z), SAMPLES)
    drawn = z[rows] + spread[rows] * rng.standard_normal((SAMPLES, z.shape[1]))
    mean = total = np.zeros(1)
    with Progress("variance map", SAMPLES, quiet=quiet, unit="volume") as progress:
        for count, one in enumerate(drawn.astype(np.float32), 1):
            volume = model.decode(one[None])[0].astype(np.float64)
            step = volume - mean  # Welford's sums: one map at a time
            mean = mean + step / count
            total = total + step * (volume - mean)
            progress.advance(1, 0.0)
    return (total / (SAMPLES - 1)).astype(np.float32)


def _write_maps(
    run: Run,
    found: Analysis,
    out: Path,
    content_maps: ContentMaps | None,
    flip_hand: bool,
    overwrite: bool,
    quiet: bool,
) -> list[Path]:
    """Write maps of clusters and along the path; return those along the path."""
    rows = found.clusters
    names = [f"cluster {c}: {n} images" for c, n in zip(rows.cluster, rows.images, strict=True)]
    stops = {"clusters": Stops(found.z[rows["nearest"].to_numpy()], names)}
    if found.path is not None:
        places = [f"{position:.0%} of the path" for position in found.stops["position"]]
        stops["series"] = Stops(found.along, places)
    written: list[Path] = []
    for name, these in stops.items():
        written = write_volumes(
            run,
            these,
            out / name,
            content_maps=content_maps,
            flip_hand=flip_hand,
            overwrite=overwrite,
            quiet=quiet,
        )
    maps = [path for path in written if re.fullmatch(r"volume-\d+\.mrc", path.name)]
    return maps if found.path is not None else []


def _write_tables(found: Analysis, out: Path, place: Staging) -> None:
    energy = found.energy
    mapped = len(energy.ticks)
    grid = np.meshgrid(*energy.ticks, indexing="ij")
    names = [f"pc_{i + 1}" for i in range(len(grid))]
    table = pd.DataFrame(
        {name: axis.ravel() for name, axis in zip(names, grid, strict=True)}
        | {"free_energy": energy.energy.ravel(), "free_energy_error": energy.error.ravel()}
    )
    _csv(table, place(out / "free-energy.csv"))
    _csv(found.clusters, place(out / "clusters.csv"))
    titles = [f"principal component {i + 1}" for i in range(len(grid))]
    marks = found.few.on(found.z[found.clusters["nearest"].to_numpy()])[:, :mapped]
    stops = marks[:0] if found.path is None else found.path.z[:, :mapped]
    labels = [str(label) for label in found.clusters["cluster"]]
    figure = free_energy_map(energy, titles, marks, labels, stops)
    place(out / "free-energy.png").write_bytes(Picture.of(figure, "", "").png)
    if found.path is not None:
        rows = found.stops
        _csv(rows, place(out / "path.csv"))
        columns = (rows[c].to_numpy() for c in ("position", "free_energy", "free_energy_error"))
        place(out / "path.png").write_bytes(Picture.of(path_profile(*columns), "", "").png)
    place(out / SUMMARY).write_text("\n\n".join(found.lines) + "\n", encoding="utf-8")


def _csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.6g")
