"""Volumes along content: maps for viewers, and strips of pictures for a quick look."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modpose.content.embedding import principal_axes
from modpose.content.few_axes import FewAxes
from modpose.content_maps import ContentMaps, DrawnMap
from modpose.content_maps.files import COMPANIONS, MAPS_BESIDE, companions_of, write_companions
from modpose.data.mrc import write_mrcs
from modpose.data.particles import listed
from modpose.devices import on_its_device
from modpose.errors import InputError, shown
from modpose.estimator import PoseModel
from modpose.evaluate.drawing import check_draws_volumes
from modpose.files.text import number, read_text
from modpose.files.writing import all_or_nothing, check_outputs, check_space
from modpose.jobs.hand import mirrored
from modpose.limits import MOST_STEPS, check_whole
from modpose.outputs.chimerax import series_script
from modpose.outputs.columns import error_of_content
from modpose.plot.figures import volume_strip
from modpose.progress import Progress
from modpose.run.inputs import files_of_run

if TYPE_CHECKING:
    from modpose.run import Run

logger = logging.getLogger("modpose")

Floats = NDArray[np.floating]
Volume = NDArray[np.float32]

QUALITY = "quality.csv"
WRITTEN = r"volume-\d{3}(\.mrc|-(" + "|".join(map(re.escape, COMPANIONS)) + "))"
"""Names of files that an earlier call wrote for a volume."""
FEW = 5.0
"""A sharp map that is the mean of fewer images says little."""
RANGE = (5.0, 95.0)
"""Percentiles of a principal component between which volumes are drawn."""
NEAR = 0.05
"""Part of the images that is near a place on a component."""


@dataclass(frozen=True)
class Stops:
    """Contents to draw, and their descriptions.

    Attributes
    ----------
    z
        (S, z_dim).
    names
        S short descriptions.
    """

    z: Floats
    names: list[str]


# --- where to stop ----------------------------------------------------------------------------


def content_name(run: Run, content_maps: ContentMaps | None) -> str:
    """Name the content that volumes are drawn at: ``sharp``, if it is not that of the run, or z."""
    own = content_maps is not None and not np.array_equal(content_maps.z, run.content())
    return "sharp" if own else "z"


def usual_error(run: Run, content_maps: ContentMaps | None) -> Floats:
    """Return the usual error (N, k) of the content that volumes are drawn at.

    Content of sharp maps is in this unit.  The standard deviation that it comes with is that
    between groups of images, and is smaller.
    """
    if content_maps is None:
        return error_of_content(run.latents())
    own = content_name(run, content_maps) == "sharp"
    return np.ones_like(content_maps.z) if own else content_maps.std


def at_file(path: Path, z_dim: int, name: str = "z") -> Stops:
    """Read content from a text file: one row per volume, numbers by commas or blanks.

    Parameters
    ----------
    path
        The file.  A header may name the columns z_0, z_1, ... in any order, among others.
    z_dim
        Number of dimensions of content.
    name
        ``z``, or ``sharp`` for columns sharp_0, sharp_1, ...: the content of sharp maps
        (:func:`content_name`).  Such a file must have a header, so that it is not taken for z.

    Raises
    ------
    InputError
        If the file has no row, a row has too few numbers, or columns are missing.
    """
    rows: list[list[float]] = []
    columns, width, first = list(range(z_dim)), z_dim, True
    for number_of_line, line in enumerate(read_text(path, "content").split("\n"), 1):
        if not line.strip():
            continue
        words = re.split(r"[\s,;]+", line.strip(" \t\r,;"))
        values = [number(word) for word in words]
        header = first and (name != "z" or all(value is None for value in values))
        first = False
        if header:
            columns, width = _columns_of(words, z_dim, name, path)
            continue
        chosen = [values[k] for k in columns] if len(values) == width else []
        content = [value for value in chosen if value is not None]
        if len(content) < z_dim:
            expected = f"{z_dim} numbers, as many as content has dimensions"
            raise InputError.of(path, f"line {number_of_line}", shown(line), expected)
        rows.append(content)
    if not rows:
        raise InputError.of(path, "the number of rows", 0, "at least one")
    return Stops(np.array(rows, dtype=float), [f"row {i + 1}" for i in range(len(rows))])


def _columns_of(header: list[str], z_dim: int, name: str, path: Path) -> tuple[list[int], int]:
    """Find the columns z_0, z_1, ... of a header, and count its columns."""
    names = [f"{name}_{k}" for k in range(z_dim)]
    found = shown(" ".join(header))
    missing = next((each for each in names if each not in header), None)
    if missing is not None and name != "z":
        expected = f"{names[0]} to {names[-1]}, the content of these maps; or --maps model"
        raise InputError.of(path, "the first line", found, expected)
    if set(names).isdisjoint(header):
        return list(range(z_dim)), z_dim
    if missing is not None:
        raise InputError.of(path, "the first line", found, f"also {missing}, or numbers alone")
    return [header.index(name) for name in names], len(header)


def at_clusters(z: Floats, count: int, seed: int) -> Stops:
    """Stop at the image nearest each centre of k-means of content z (N, z_dim).

    There are fewer clusters where there are fewer different contents.
    """
    from sklearn.cluster import KMeans

    if not 1 <= count <= len(z):
        raise InputError.of("--cluster", "the number", count, f"1 to {len(z)} (the images)")
    count = min(count, len(np.unique(z, axis=0)))
    fitted = KMeans(count, n_init=4, random_state=seed).fit(z)
    distance = fitted.transform(z)
    sizes = np.bincount(fitted.labels_, minlength=count)
    names = [f"cluster {k}: {sizes[k]} images" for k in range(count)]
    return Stops(z[distance.argmin(axis=0)], names)


def along_component(z: Floats, component: int, steps: int, error: Floats | None = None) -> Stops:
    """Take steps along a principal component of content (from 1), from its 5th to 95th percentile.

    They are on a straight line through the mean.  With the ``error`` (N, k) of content they are
    where images are: on the path of greatest density, or, where no images join its ends, each at
    the densest place near it.
    """
    check_whole("--steps", "the number", steps, 2, MOST_STEPS)
    if not 1 <= component <= z.shape[1]:
        raise InputError.of("--along", "the component", component, f"1 to {z.shape[1]}")
    if error is not None:
        return _along_images(FewAxes.of(z, error), component, steps)
    mean, axes, _ = principal_axes(z)
    axis = axes[component - 1]
    first, last = np.percentile((z - mean) @ axis, RANGE)
    places = np.linspace(first, last, steps)
    return Stops(mean + places[:, None] * axis, _at_component(component, places))


def _along_images(few: FewAxes, component: int, steps: int) -> Stops:
    """Take steps along a principal component, where images are."""
    mean, axes, _ = principal_axes(few.z / few.unit)

    def along(z: Floats) -> Floats:
        found: Floats = (z / few.unit - mean) @ axes[component - 1]
        return found

    landscape = few.landscape()
    z = few.z[landscape.nodes]
    places = along(z)

    def densest(place: float) -> int:
        near = np.abs(places - place).argsort()[: max(round(NEAR * len(z)), 1)]
        return int(near[landscape.energy[near].argmin()])

    first, last = np.percentile(places, RANGE)
    stops = [densest(place) for place in np.linspace(first, last, steps)]
    content = z[stops]
    if component <= len(few.axes):
        with suppress(InputError):  # no images join the ends
            path = landscape.path(few.on(content[[0, -1]]), steps)
            content = few.content_at(path.z)
    return Stops(content, _at_component(component, along(content)))


def _at_component(component: int, places: Floats) -> list[str]:
    return [f"PC {component} at {place:.2f}" for place in places]


def along_path(z: Floats, path: str, steps: int, error: Floats | None = None) -> Stops:
    """Take steps between the contents of two images; ``path`` is ``a..b``, from 0.

    They are on a straight line, or, with the ``error`` (N, k) of content, on the path of greatest
    density (:class:`modpose.content.few_axes.FewAxes`).
    """
    check_whole("--steps", "the number", steps, 2, MOST_STEPS)
    first, last = ends_of_path(path, len(z))
    share = np.linspace(0, 1, steps)[:, None]
    names = [f"{part:.0%} from image {first} to {last}" for part in share[:, 0]]
    if error is not None:
        ends = (f"image {first}", f"image {last}")
        return Stops(FewAxes.of(z, error).path(z[[first, last]], steps, ends)[1], names)
    return Stops((1 - share) * z[first] + share * z[last], names)


def ends_of_path(path: str, n: int) -> tuple[int, int]:
    """Read ``a..b``, two of n images counted from 0."""
    match = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", path.strip())
    if match is None:
        raise InputError.of("--path", "the path", shown(path), "two images, as in 3..120")
    first, last = (int(part) for part in match.groups())
    for image in (first, last):
        if image >= n:
            raise InputError.of("--path", "the image", image, f"0 to {n - 1}")
    return first, last


# --- drawing and writing ----------------------------------------------------------------------


@on_its_device
def write_volumes(
    run: Run,
    stops: Stops,
    out: Path,
    *,
    content_maps: ContentMaps | None = None,
    flip_hand: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    device: str | None = None,
) -> list[Path]:
    """Write a map for each stop, their content, and a strip of pictures.

    Parameters
    ----------
    run
        A run whose model draws volumes.
    stops
        Where to draw.
    out
        Folder: ``volume-001.mrc`` ..., ``content.csv``, ``strip.png``, and ``series.cxc``, which
        plays them in ChimeraX.
    content_maps
        Sharp maps of the run (:func:`modpose.outputs.content_maps.content_maps_of`), to draw in
        place of the model's.  Beside each volume then stand its half maps, their FSC as table and
        picture, and its local resolution, and ``quality.csv`` lists resolutions and how many
        images each volume is the mean of.
    flip_hand
        Mirror the volumes (along z, about the centre n // 2).
    overwrite
        Replace existing files; volumes of an earlier call are removed.
    quiet
        No progress bar.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Returns
    -------
    The files written.

    Raises
    ------
    InputError
        If the model draws pictures, a file already exists, or the disk has no space for the maps.
    """
    check_volumes(run, len(stops.z), out, sharp=content_maps is not None, overwrite=overwrite)
    targets, beside = _targets(len(stops.z), out, content_maps is not None)
    more = [*chain(*beside), *([out / QUALITY] if beside else [])]
    names = [path.name for path in targets[: len(stops.z)]]
    maps = len(names) * (1 if content_maps is None else 1 + MAPS_BESIDE)
    volumes: list[Volume] = []
    empty: list[str] = []
    with all_or_nothing() as place:
        lines = [f"volume,images,resolution_{'px' if _pixel_size(run) is None else 'A'}"]
        for i, drawn in enumerate(_drawn(run, stops, content_maps, quiet)):
            if not volumes:
                check_space(out, float(maps) * drawn.volume.nbytes)
            flipped = mirrored(drawn.volume) if flip_hand else drawn.volume
            write_mrcs(place(targets[i]), flipped[None], _pixel_size(run))
            volumes.append(flipped)
            if content_maps is not None and drawn.quality is not None:
                staged = [place(path) for path in beside[i]]
                found = write_companions(drawn.quality, content_maps.mask, staged, flip_hand)
                lines.append(f"{names[i]},{drawn.quality.images:.6g},{found:.6g}")
                if drawn.quality.images < FEW:
                    empty.append(names[i])
        for earlier in out.glob("volume-[0-9][0-9][0-9]*"):
            if re.fullmatch(WRITTEN, earlier.name):
                place.remove(earlier)
        place.remove(out / QUALITY)
        if beside:
            place(out / QUALITY).write_text("\n".join(lines) + "\n")
        script = series_script(names, volumes[0])
        place(out / "series.cxc").write_text(script, encoding="utf-8")
        name = content_name(run, content_maps)
        lines = [",".join(f"{name}_{k}" for k in range(stops.z.shape[1]))]
        lines += [",".join(f"{value:.6g}" for value in row) for row in stops.z]
        place(targets[-2]).write_text("\n".join(lines) + "\n")
        place(targets[-1]).write_bytes(strip(np.stack(volumes), stops.names, _pixel_size(run)))
    if empty:
        logger.warning(
            "%s: fewer than %g images are near the content of %s, so these maps say little; "
            "--cluster and --path stay where images are",
            out,
            FEW,
            listed(empty),
        )
    return [*targets[: len(names)], *more, *targets[len(names) :]]


def check_volumes(
    run: Run, count: int, out: Path, *, sharp: bool = False, overwrite: bool = False
) -> None:
    """Refuse to write so many volumes where that is not possible, as :func:`write_volumes` does."""
    targets, beside = _targets(count, out, sharp)
    more = [*chain(*beside), *([out / QUALITY] if sharp else [])]
    check_outputs([*targets, *more], overwrite, files_of_run(run))


def _targets(count: int, out: Path, sharp: bool) -> tuple[list[Path], list[list[Path]]]:
    """Name the files of so many volumes, and what stands beside each sharp map."""
    names = [f"volume-{i + 1:03d}.mrc" for i in range(count)]
    targets = [out / name for name in [*names, "series.cxc", "content.csv", "strip.png"]]
    return targets, [companions_of(out / name) for name in names] if sharp else []


class _Drawn(NamedTuple):
    """A volume (D, D, D), and what is known of it where it is drawn from the images."""

    volume: Volume
    quality: DrawnMap | None


def _drawn(
    run: Run, stops: Stops, content_maps: ContentMaps | None, quiet: bool
) -> Iterator[_Drawn]:
    """Draw one volume at a time, with a progress bar."""
    model = PoseModel.load(run.path)
    check_draws_volumes(run, model)
    with Progress("volumes", len(stops.z), quiet=quiet, unit="volume") as progress:
        for z in stops.z:
            if content_maps is None:
                yield _Drawn(model.decode(z[None])[0], None)
            else:
                quality = content_maps.draw(z)
                yield _Drawn(quality.volume, quality)
            progress.advance(1, 0.0)


def _pixel_size(run: Run) -> float | None:
    size: float | None = run.environment.get("pixel_size")
    return size


def strip(volumes: Volume, names: list[str], pixel_size: float | None = None) -> bytes:
    """Draw volumes (S, D, H, W) side by side as a PNG: projections and central slices."""
    file = io.BytesIO()
    volume_strip(volumes, names, pixel_size=pixel_size).savefig(file, format="png", dpi=100)
    return file.getvalue()
