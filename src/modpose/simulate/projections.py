"""Simulated cryo-EM particles of molecules that move: projections in 3-D poses, with their truth.

    image = CTF * ∫ f(Rᵀ(x − t); class, hinge) dz + noise

The projection of a Gaussian is a Gaussian, so the signal is exact at the pixel centres, without
interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.progress import bar
from modpose.simulate import imperfections, microscope
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.molecules import density, project
from modpose.simulate.settings import ProjectionSettings as ProjectionSettings

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

CHUNK_BYTES = 2**26
"""Largest memory for the profiles of the atoms, bytes."""
BUILT_IN_HINGE = (-30.0, 30.0)


@dataclass(frozen=True)
class Projections:
    """Images, their truth, and the poses of a consensus refinement.

    Attributes
    ----------
    settings, conformers
        What was simulated.
    images
        (N, H, W) float32, signal plus noise of unit variance.
    scale
        Factor on the densities that gives the signal-to-noise ratio.
    truth
        One row per image: ``r00`` ... ``r22``, ``shift_x``, ``shift_y`` (pixels), ``class`` and
        ``template`` (the name) where there are several, ``hinge_deg`` where something moves,
        ``junk`` (``no``, ``noise`` or ``object``; pose and class of junk mean nothing) and
        ``contrast`` where asked for.
    rotation, shift
        (N, 3, 3) and (N, 2) consensus poses: the true ones plus the requested errors.
    ctf
        (N, 9) parameters, columns as in :class:`modpose.observe.ctf.CtfColumn`, or None.
    """

    settings: ProjectionSettings
    conformers: tuple[Conformer, ...]
    images: Images
    scale: float
    truth: pd.DataFrame
    rotation: Floats
    shift: Floats
    ctf: Floats | None

    def volume(self, conformer: int = 0, hinge_deg: float = 0.0) -> Images:
        """Return a true map, (D, H, W): summed along z it is the upright signal, before the CTF."""
        one, s = self.conformers[conformer].molecule, self.settings
        centers = one.conformations(np.array([hinge_deg]))
        still = np.eye(3)[None], np.zeros((1, 3))
        values = density(centers, one.sigmas, one.masses, *still, s.box, s.pixel_size)[0]
        return np.asarray(values * np.float32(self.scale * s.pixel_size), np.float32)

    def hinge_angles(self, count: int) -> Floats:
        """Return the middles of equal parts of the hinge's range; a single 0 if nothing moves."""
        limits = hinge_range(self.settings, self.conformers)
        if limits is None:
            return np.zeros(1)
        return limits[0] + (limits[1] - limits[0]) * (np.arange(count) + 0.5) / count


def hinge_range(
    settings: ProjectionSettings, conformers: Sequence[Conformer]
) -> tuple[float, float] | None:
    """Return the limits of the hinge angle, degrees; None if nothing moves."""
    own = [one.hinge_range_deg for one in conformers if one.hinge_range_deg is not None]
    if settings.hinge_range_deg is not None:
        return settings.hinge_range_deg
    return own[0] if own else None


def simulate_projections(
    settings: ProjectionSettings,
    conformers: Sequence[Conformer] | None = None,
    poses: tuple[Floats, Floats] | None = None,
) -> Projections:
    """Simulate images of one molecule or of a mixture, in 3-D poses.

    Parameters
    ----------
    settings
        What to simulate.
    conformers
        The classes; by default the built-in molecule with an arm that rotates by up to ±30°.
    poses
        (N, 3, 3) rotations and (N, 2) shifts in pixels; by default Haar-uniform rotations and
        normal shifts.

    Raises
    ------
    InputError
        If a molecule does not fit into the box, or abundances or poses do not fit the rest.
    """
    import pandas as pd
    from scipy.spatial.transform import Rotation

    if conformers is None:
        conformers = [Conformer("hinged", built_in_conformers(1)[0].molecule, BUILT_IN_HINGE)]
    conformers = tuple(conformers)
    limits = hinge_range(settings, conformers)
    _check(settings, conformers, limits, poses)
    n = settings.n
    rng = np.random.default_rng(settings.seed)
    shares = np.array(settings.abundances or (1.0,) * len(conformers))
    classes = rng.choice(len(conformers), size=n, p=shares / shares.sum())
    hinge = np.zeros(n) if limits is None else rng.uniform(*limits, size=n)
    flaws = imperfections.generator(settings)
    if poses is None:
        turns = Rotation.random(n, rng).as_matrix()
        poses = turns, settings.shift_std_px * rng.standard_normal((n, 2))
        if settings.views is not None:
            poses = imperfections.near_axis(turns, settings.views, flaws), poses[1]
    rotation, shift = poses
    ctf = None
    if settings.ctf:
        ctf = microscope.draw_ctf_parameters(n, settings.pixel_size, settings.defocus_range, rng)
    kind = imperfections.draw_junk(settings, flaws)
    contrast = imperfections.draw_contrast(settings, flaws)
    clean = _project(settings, conformers, classes, hinge, rotation, shift)
    _put_junk(clean, kind, settings, conformers, flaws)
    if ctf is not None:
        clean = microscope.filter_by_ctf(clean, ctf)
    variance = float(clean[kind == 0].var(dtype=np.float64))
    scale = microscope.scale_for_snr(variance, settings.snr)
    images = _noisy(clean, scale * contrast, settings, rng)
    columns: dict[str, NDArray[Any]] = {
        f"r{i}{j}": rotation[:, i, j] for i in range(3) for j in range(3)
    }
    columns |= {"shift_x": shift[:, 0], "shift_y": shift[:, 1]}
    if len(conformers) > 1:
        columns |= {"class": classes, "template": np.array([c.name for c in conformers])[classes]}
    if limits is not None:
        columns["hinge_deg"] = hinge
    columns |= imperfections.columns(settings, kind, contrast)
    given = _consensus(settings, rotation, shift, rng)
    return Projections(settings, conformers, images, scale, pd.DataFrame(columns), *given, ctf)


def _project(
    settings: ProjectionSettings,
    conformers: Sequence[Conformer],
    classes: NDArray[np.int64],
    hinge: Floats,
    rotation: Floats,
    shift: Floats,
) -> Images:
    """Return (N, H, W) signals, not scaled, before the CTF."""
    box = settings.box
    clean = np.empty((settings.n, box, box), np.float32)
    with bar(label="projecting", total=settings.n) as progress:
        for k, one in enumerate(conformers):
            m = one.molecule
            mine = np.flatnonzero(classes == k)
            size = max(1, CHUNK_BYTES // (32 * len(m.masses) * box))
            for part in np.split(mine, range(size, len(mine), size)):
                centers = m.conformations(hinge[part])
                posed = rotation[part], shift[part]
                clean[part] = project(centers, m.sigmas, m.masses, *posed, box, settings.pixel_size)
                progress.update(len(part))
    return clean


def _put_junk(
    clean: Images,
    kind: NDArray[np.int64],
    settings: ProjectionSettings,
    conformers: Sequence[Conformer],
    rng: np.random.Generator,
) -> None:
    """Replace the signal of junk, in place."""
    clean[kind == 1] = 0.0
    wrong = np.flatnonzero(kind == 2)
    if len(wrong):
        one = conformers[0].molecule
        size = one.radius(np.zeros(1)), float(one.masses.sum())
        clean[wrong] = imperfections.wrong_objects(len(wrong), settings, *size, rng)


def _noisy(
    clean: Images, factor: Floats, settings: ProjectionSettings, rng: np.random.Generator
) -> Images:
    """Scale each signal, and add noise of unit variance."""
    signal = clean * factor.astype(np.float32)[:, None, None]
    if settings.noise_spectrum == 1:
        return microscope.add_unit_noise(signal, rng)
    noise = microscope.add_unit_noise(np.zeros_like(signal), rng)
    return signal + imperfections.coloured(noise, settings.noise_spectrum)


def _consensus(
    settings: ProjectionSettings, rotation: Floats, shift: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Add small random rotations and shifts to the poses."""
    from scipy.spatial.transform import Rotation

    if settings.rotation_error_deg:
        vectors = rng.standard_normal((len(rotation), 3)) / math.sqrt(3)
        turn = Rotation.from_rotvec(np.deg2rad(settings.rotation_error_deg) * vectors)
        rotation = rotation @ turn.as_matrix()
    if settings.shift_error_px:
        shift = shift + settings.shift_error_px * rng.standard_normal(shift.shape)
    return rotation, shift


def _check(
    settings: ProjectionSettings,
    conformers: tuple[Conformer, ...],
    limits: tuple[float, float] | None,
    poses: tuple[Floats, Floats] | None,
) -> None:
    if settings.abundances is not None and len(settings.abundances) != len(conformers):
        expected = f"{len(conformers)}, one for each molecule"
        found = f"{len(settings.abundances)} numbers"
        raise InputError.of("projections", "abundances", found, expected)
    if poses is not None and settings.views is not None:
        raise InputError("projections: views and poses are given, expected one of the two")
    if poses is not None and (len(poses[0]) != settings.n or len(poses[1]) != settings.n):
        raise InputError.of("projections", "the number of poses", len(poses[0]), f"{settings.n}")
    hinge = np.linspace(*(limits or (0.0, 0.0)), 11)
    if limits is not None and not any(_moves(one, hinge) for one in conformers):
        raise InputError.of(
            "projections", "hinge_range_deg", limits, "a molecule that moves (--arm or --morph)"
        )
    for one in conformers:
        diameter = 2 * one.molecule.radius(hinge)
        if diameter > settings.box * settings.pixel_size:
            raise InputError(
                f"projections: {one.name} is {diameter:.0f} Å across and does not fit into a box "
                f"of {settings.box} pixels of {settings.pixel_size:g} Å, expected a pixel size of "
                f"at least {math.ceil(100 * diameter / settings.box) / 100:g} Å"
            )


def _moves(one: Conformer, hinge: Floats) -> bool:
    places = one.molecule.conformations(hinge)
    return len(set(hinge)) == 1 or bool(np.abs(places - places[:1]).max() > 0)
