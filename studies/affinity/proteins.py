"""Proteins at 10 Å: Figures 5, 7 and 9, seen and unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.matrix import class_names
from modpose.evaluate.metrics import knn_r2
from modpose.plot import grids
from modpose.simulate.species import Species, built_in_species, species_of_files
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms
from studies.affinity import figures
from studies.affinity.budgets import Model
from studies.affinity.common import (
    DIGITS,
    NAME,
    NOTE,
    SEEN,
    Found,
    Setting,
    class_matrix,
    found_all,
    make_fit,
)
from studies.affinity.tetrominoes import (
    AFFINITY,
    HARMONIC,
    MOVING,
    PLAIN,
)
from studies.common import plots
from studies.common.conduct import Study
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample, sample_once
from studies.common.study import Fit, Options, Result

FILES = (
    "1bxn.pdb",
    "3gl1.pdb",
    "4hhb.pdb",
    "1qvr.pdb",
    "3cf3.pdb",
    "1s3x.pdb",
    "3h84.pdb",
    "1igt.pdb",
    "4v1w.cif.gz",
    "1oel.pdb",
)
"""Of the folder pdb of the data, as far as they are there; the last two are not trained on."""
UNSEEN = 2
MODELS = (PLAIN, AFFINITY, MOVING, HARMONIC)
MORE: Options = {"data": {"normalize": "range"}}
BLOCK = 100
"""Volumes that are simulated at a time."""
SIDE = 5
"""Pictures along a side of the square between four samples."""
STEPS = 7
"""Pictures along a dimension of content."""


# --- data -------------------------------------------------------------------------------------


def species_of(setting: Setting) -> list[Species]:
    """Read the proteins that there are; without any, make assemblies of blobs."""
    folder = None if setting.data is None else setting.data / "pdb"
    files = [folder / name for name in FILES if (folder / name).is_file()] if folder else []
    if len(files) <= UNSEEN:
        return built_in_species(4 + UNSEEN)
    return species_of_files(files, 10.0)


def sample_of(setting: Setting) -> Sample:
    """Volumes of the proteins that are trained on, some held out, and of two that are not."""
    sizes, folder = setting.plan.proteins, setting.samples / "proteins"
    kept = folder / "names.txt"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(" ".join(one.name for one in species_of(setting)))
    names = kept.read_text().split()
    description = (
        f"Densities at 10 Å in {sizes.box}³ voxels, Haar rotations, clean: {sizes.images:,} of "
        f"{', '.join(names[:-UNSEEN])} to fit, {sizes.held_out:,} of them held out, "
        f"{sizes.unseen:,} of {', '.join(names[-UNSEEN:])}, which no fit sees."
    )
    return sample_once(setting.samples, "proteins", description, lambda: _make(setting))


def _simulated(setting: Setting) -> Subtomograms:
    sizes, species = setting.plan.proteins, species_of(setting)
    widest = max(2 * one.radius(np.zeros(1)) for one in species)
    known, kinds = sizes.images + sizes.held_out, len(species) - UNSEEN
    shares = [known / kinds] * kinds + [sizes.unseen / UNSEEN] * UNSEEN
    settings = SubtomogramSettings(
        n=known + sizes.unseen,
        box=sizes.box,
        pixel_size=float(np.ceil(widest / sizes.box * 10) / 10),
        noise="none",
        tilt_range_deg=(-90.0, 90.0),
        max_shift_px=0.0,
        abundances=tuple(shares),
        seed=setting.seed,
    )
    return simulate_subtomograms(settings, species)


def _make(setting: Setting) -> Made:
    made, sizes = _simulated(setting), setting.plan.proteins
    truth = made.truth.rename(columns={"template": NAME})
    truth[SEEN] = (truth["class"] < len(made.species) - UNSEEN).astype(int)
    order = np.argsort(1 - truth[SEEN].to_numpy(), kind="stable")
    blocks = np.array_split(order, -(-len(order) // BLOCK))
    volumes = np.concatenate([_eight_bit(made.volumes(rows)) for rows in blocks])
    np.save(setting.samples / "proteins" / "templates.npy", made.templates())
    truth = truth.iloc[order].drop(columns="class").reset_index(drop=True)
    return volumes, len(order) - sizes.images, truth


def _eight_bit(volumes: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(255 * np.clip(volumes, 0.0, 1.0)).astype(np.uint8)


def _fit(setting: Setting, model: Model) -> Fit:
    sample = sample_of(setting)
    folder = setting.samples / "proteins"
    upright: NDArray[np.float32] = np.load(folder / "templates.npy", allow_pickle=False)
    names = (folder / "names.txt").read_text().split()[:-UNSEEN]
    matrix = class_matrix(setting, "proteins", model.similarity, upright[:-UNSEEN], names)
    return make_fit(setting, setting.plan.proteins, sample, model, matrix, MORE)


# --- the study --------------------------------------------------------------------------------


def prepare(setting: Setting) -> Study:
    """Fit affinity-VAE and β-VAE."""
    models = MODELS[:2] if setting.plan.as_printed else MODELS
    fits = {model: _fit(setting, model) for model in models}
    sample = sample_of(setting)

    def show(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        return _show(setting, found_all(fits, results), results[fits[models[-1]].name], page)

    said = "FSC affinities of upright densities. " + NOTE
    title = "Proteins, seen and unseen: Figures 5, 7 and 9"
    return Study(title, [sample.description, said], list(fits.values()), show)


def _show(setting: Setting, by: dict[Model, Found], result: Result, page: Page) -> list[str]:
    rows: list[Row] = [{"model": model.title, **found.row()} for model, found in by.items()]
    last = list(by.values())[-1]
    panels = {model.title: found for model, found in by.items()}
    return [
        page.table("proteins", "Proteins, held out", rows, DIGITS),
        *_unseen(last, page),
        page.figure(
            "figure-5",
            figures.embeddings(panels, setting.seed, setting.plan.small),
            "Figure 5: fitted (faint), held-out and unseen (crosses) proteins",
        ),
        *_interpolation(setting, result, last, page),
        *_organisation(setting, by, page),
    ]


def _unseen(found: Found, page: Page) -> list[str]:
    """Table of the kin of unseen proteins: soft assignments."""
    unseen = ~found.seen
    if not unseen.any():
        return []
    count = min(100, len(found.known.z) // 4)
    shares = found.known.fractions(found.z[unseen], count)
    names, means = _mean_fractions(shares, found.names[unseen])
    rows: list[Row] = [
        {"unseen": name, **dict(zip(found.known.names, row.tolist(), strict=True))}
        for name, row in zip(names, means, strict=True)
    ]
    digits = dict.fromkeys(found.known.names, 2)
    caption = f"Unseen proteins: shares of known ones among their {count} neighbours"
    return [page.table("figure-5-soft", caption, rows, digits)]


# --- Figure 7 ---------------------------------------------------------------------------------


def _interpolation(setting: Setting, result: Result, found: Found, page: Page) -> list[str]:
    """Walk along each dimension from a sample, and between four samples."""
    model = result.model()
    model.quiet = True
    seen = np.flatnonzero(found.seen)
    names = found.names[seen]
    four = [int(seen[names == name][0]) for name in list(dict.fromkeys(names.tolist()))[:4]]
    four = (four * 4)[:4]
    start = found.z[four[0]]
    spread = found.known.z.std(0)
    walks = {}
    for k in range(min(6, len(start))):
        codes = np.repeat(start[None], STEPS, 0)
        codes[:, k] += np.linspace(-2, 2, STEPS) * spread[k]
        walks[f"{k + 1}"] = _pictures(model.decode(codes))
    square = _pictures(model.decode(between_four(found.z[four], SIDE)))
    return [
        page.figure(
            "figure-7-left",
            plots.strips(walks),
            "Figure 7, left: mean projections along dimensions of content, ±2 standard deviations "
            "about an encoded sample",
        ),
        page.figure(
            "figure-7-right",
            plots.titled_mosaics({"": square}, SIDE, 1, 1),
            "Figure 7, right: mean projections between four encoded samples, which are the corners",
        ),
    ]


def between_four(z: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return contents (side², k) spread evenly between four (4, k), which are the corners."""
    part = np.linspace(0.0, 1.0, side)
    down, across = (a.ravel()[:, None] for a in np.meshgrid(part, part, indexing="ij"))
    upper = (1 - across) * z[0] + across * z[1]
    lower = (1 - across) * z[2] + across * z[3]
    return np.asarray((1 - down) * upper + down * lower)


def _pictures(volumes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return mean projections along z in [0, 1]."""
    pictures = volumes.mean(1)
    return np.asarray(grids.to_unit(pictures, grids.grey_range(pictures)), np.float64)


# --- Figure 9 ---------------------------------------------------------------------------------


def _organisation(setting: Setting, by: dict[Model, Found], page: Page) -> list[str]:
    """Ask what neighbours in content tell: offset from the centre, intensity, class."""
    offset, intensity = covariates(sample_of(setting))
    rows: list[Row] = []
    for model, found in by.items():
        z = found.z
        k = min(10, len(z) - 1)
        rows.append(
            {
                "model": model.title,
                "centre offset, R²": knn_r2(z, offset, k),
                "mean intensity, R²": knn_r2(z, intensity, k),
                "kNN 5": found.accuracy(),
            }
        )
    digits = {"centre offset, R²": 2, "mean intensity, R²": 2, "kNN 5": 3}
    plain = by[PLAIN]
    plane, _, kind = figures.embedded(plain, setting.seed, setting.plan.small)
    panels = {"offset from the centre (voxels)": offset, "mean intensity": intensity}
    return [
        page.table("figure-9", "Figure 9: what neighbours in content tell", rows, digits),
        "R²: part of the variance that the mean of the ten nearest other held-out samples tells.",
        page.figure(
            "figure-9",
            figures.coloured(panels, plane[kind > 0]),
            "Figure 9: contents of held-out proteins of the β-VAE, by what may organise them",
        ),
    ]


def covariates(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far each held-out object's mass lies from the box's centre, and its mean value."""
    source = sample.open_test()
    volumes = source.stack.read(np.arange(source.n))[:, 0].astype(np.float64)
    mass = volumes.sum((1, 2, 3))
    axes = np.meshgrid(*[np.arange(side) - side // 2 for side in source.stack.shape], indexing="ij")
    centre = [(volumes * axis).sum((1, 2, 3)) / mass for axis in axes]
    return np.sqrt(np.sum(np.square(centre), axis=0)), volumes.mean((1, 2, 3))


def _mean_fractions(
    fractions: NDArray[np.float64], labels: ArrayLike
) -> tuple[list[str], NDArray[np.float64]]:
    """Average soft assignments (M, K) over the samples of each label.

    Returns
    -------
    names, shares
        L labels in natural order; (L, K), rows add up to 1.
    """
    names, member = class_names(labels)
    return names, np.stack([fractions[member == k].mean(0) for k in range(len(names))])
