"""The section on symmetry: rotations after which an object looks the same to the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.evaluate.symmetry import (
    COMPARABLE,
    SAME,
    ClassSymmetry,
    angle_posterior,
    class_symmetry,
    image_order,
    relative_deg,
)
from modpose.geometry.degrees import wrap_deg
from modpose.infer.search import infers_angle, modes_of
from modpose.model.latents import Latents
from modpose.model.settings import SearchSettings
from modpose.plot import grids
from modpose.plot.html import Picture, Section
from modpose.report import pose_figures
from modpose.report.material import Integers, ReportData, sense_of_angle
from modpose.report.probe import Probe

if TYPE_CHECKING:
    from modpose.plot.grids import Floats

SEARCH = SearchSettings(modes=12)
"""Larger than the largest order that is searched, because some modes differ only in shift."""
TURNS = 12
"""Number of angles of the average, including the best one."""
PIXELS = 400
"""Number of random pixels from which the average is estimated."""
AT_ONCE = 32
"""Images per batch of the search."""
SHOWN = 8
"""Ambiguous images that are shown."""
APART_DEG = 20.0
"""Degrees by which a second angle must differ from the best."""


@dataclass(frozen=True)
class Modes:
    """The modes of the pose of n images, most probable first.

    Attributes
    ----------
    angle_deg, std_deg, weight
        (n, K) angles, their widths, posterior weights.
    shift_px
        (n, K, 2).
    """

    angle_deg: Floats
    std_deg: Floats
    weight: Floats
    shift_px: Floats

    @property
    def relative(self) -> NDArray[np.float64]:
        """(n, K) degrees from the best."""
        return relative_deg(self.angle_deg)


def symmetry(m: ReportData) -> Section | None:
    """Symmetry orders of the images, and symmetry groups of the classes."""
    probe = m.probe
    if probe is None or m.angle_deg is None or not infers_angle(probe.vae):
        return None
    if m.mirrored is not None or m.scale is not None:  # the pose search knows neither
        return None
    modes = find_modes(m, probe)
    orders = image_order(modes.relative, modes.weight, modes.std_deg)
    average = average_turn(m, probe, modes)
    found = {}
    for name in probe.names:
        own = probe.classes == name
        found[name] = class_symmetry(
            orders[own], modes.relative[own], modes.weight[own], average[own]
        )
    ambiguous = most_ambiguous(modes)
    if not len(ambiguous) and all(one.order == 1 for one in found.values()):
        return _nothing_symmetric(probe, found)
    pictures = [_histograms(probe, modes, found)]
    if len(ambiguous):
        pictures.append(_pairs(m, probe, modes, ambiguous))
    header, table = _table(probe.kind or "class", found)
    return Section(
        "symmetry",
        "Symmetry",
        _caption(m, len(probe.rows), len(ambiguous)),
        "objects that you know to be symmetric have their group, and all others are C1 and of "
        "order 1: their angle is certain.",
        "a symmetry that the object does not have (the model did not learn the detail that breaks "
        "it, or noise hides it), or no preferred angle although the object is not round.",
        pictures,
        header,
        table,
    )


@torch.no_grad()
def find_modes(m: ReportData, probe: Probe) -> Modes:
    """Search the modes of each image's pose, given the inferred content."""
    device = probe.batch.image.device
    z = torch.as_tensor(m.z[probe.rows, None], dtype=torch.float32, device=device)
    angle, shift = (torch.as_tensor(p, dtype=torch.float32) for p in m.pose_of(probe.rows)[:2])
    start = (angle.deg2rad().to(device), shift.to(device))
    parts = []
    for rows in torch.split(torch.arange(len(probe.rows), device=device), AT_ONCE):
        pose = (start[0][rows], start[1][rows])
        parts.append(modes_of(probe.vae, probe.batch.rows(rows), z[rows], SEARCH, pose))

    def joined(name: str) -> Floats:
        return torch.cat([getattr(part, name) for part in parts]).cpu().double().numpy()

    return Modes(
        angle_deg=np.rad2deg(joined("angle")),
        std_deg=np.rad2deg(joined("angle_std")),
        weight=np.exp(joined("log_weight")),
        shift_px=joined("shift"),
    )


@torch.no_grad()
def average_turn(m: ReportData, probe: Probe, modes: Modes) -> NDArray[np.float64]:
    """(n,) drop of log p(image | content, pose) from the best angle to the average, nats."""
    device = probe.batch.image.device
    turns = torch.arange(TURNS, device=device) * (2 * math.pi / TURNS)
    z, angle, shift = (
        torch.as_tensor(part, dtype=torch.float32, device=device)
        for part in (m.z[probe.rows], np.deg2rad(modes.angle_deg[:, :1]), modes.shift_px[:, :1])
    )
    generator = torch.Generator(device).manual_seed(m.seed)
    falls = []
    few = max(1, probe.vae.whole_batch // TURNS)
    for rows in torch.split(torch.arange(len(probe.rows), device=device), few):
        spin = angle[rows] + turns
        content = z[rows, None].expand(-1, TURNS, -1)
        cell = torch.zeros_like(spin, dtype=torch.int64)
        poses = Latents(content, spin, shift[rows].expand(-1, TURNS, -1), cell)
        batch = probe.batch.rows(rows)
        value = probe.vae.log_likelihood(batch, poses, generator, PIXELS)
        falls.append(value[:, 0] - value[:, 1:].mean(1))
    return torch.cat(falls).cpu().double().numpy()


def second_way_up(modes: Modes) -> Integers:
    """(n,) the most probable mode with another angle than the best; 0 if there is none."""
    elsewhere = np.abs(modes.relative) > APART_DEG
    return np.asarray(np.where(elsewhere, modes.weight, 0.0).argmax(1))


def most_ambiguous(modes: Modes, count: int = SHOWN) -> Integers:
    """At most ``count`` images with two comparable angles, the most evenly weighted first."""
    weight = np.take_along_axis(modes.weight, second_way_up(modes)[:, None], 1)[:, 0]
    ratio = np.where(second_way_up(modes) > 0, weight / modes.weight[:, 0], 0.0)
    order = np.argsort(-ratio, kind="stable")[:count]
    return np.asarray(order[ratio[order] >= COMPARABLE])


# --- what is shown ----------------------------------------------------------------------------


def _nothing_symmetric(probe: Probe, found: dict[str, ClassSymmetry]) -> Section:
    """Say in three lines that every angle is certain."""
    name, (order, cost) = min(
        ((name, one.nearest) for name, one in found.items()), key=lambda pair: pair[1][1]
    )
    which = f" of {probe.kind} {name}" if len(found) > 1 else ""
    return Section(
        "symmetry",
        "Symmetry",
        f"None: each of {len(probe.rows)} images, evenly spread, has one angle that explains it "
        f"best. The rotation nearest to a symmetry is 1/{order} turn{which}. It loses "
        f"{_percent(cost)} of the log-likelihood that a rotation by an average angle loses; a "
        f"symmetry loses less than {_percent(SAME)}.",
    )


def _table(
    kind: str, found: dict[str, ClassSymmetry]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows: the orders that occur, the group, the weights of its rotations."""
    shares = np.array([one.shares for one in found.values()])
    orders = [n for n in range(1, shares.shape[1]) if n <= 2 or shares[:, n].any()]
    header = (
        kind,
        "images",
        *(f"order {n}" for n in orders),
        "round",
        "symmetry group",
        "cost of its rotations",
        "mean weight of each mode",
    )
    table = []
    for name, one in found.items():
        parts = [_percent(one.shares[n]) for n in [*orders, 0]]
        order, cost = one.nearest
        turn = f"{_percent(cost)} (1/{order} turn)" if one.order else "–"
        weights = " + ".join(_percent(weight) for weight in one.weights) if one.order else "–"
        table.append((name, str(one.images), *parts, one.group, turn, weights))
    return header, table


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _caption(m: ReportData, images: int, ambiguous: int) -> str:
    caption = (
        f"For {images} images, evenly spread, the model's own picture of the content was compared "
        "with the image in every pose. The poses that explain an image best are the modes of its "
        "posterior; they show the rotations after which the object looks the same. An image has "
        f"order n if modes of comparable weight (at least {_percent(COMPARABLE)} of the best) lie "
        "at every multiple of 360°/n from the best one: an object of order 2 looks the same upside "
        "down. Columns 'order n' give the share of images of that order; 'round' is the share "
        "whose posterior covers nearly the whole circle. With little noise, very small details "
        "decide between two angles. The symmetry group of a class is therefore defined by the "
        "loss in log-likelihood: it is Cₙ with the largest n for which rotations by 360°/n and its "
        f"multiples lose less than {_percent(SAME)} of the nats that a rotation by an average "
        "angle loses. 'Cost of its rotations' is this fraction (for C1, that of the rotation "
        "nearest to a symmetry); 0 % is a perfect symmetry. The last column is the mean posterior "
        "probability of the best mode and of the modes 360°/n, 2 · 360°/n, … from it; the rest to "
        "100 % lies at other angles. The first figure shows the mean posterior of the angle "
        "relative to the best mode (dotted: the rotations of the symmetry group). "
    )
    if not ambiguous:
        return caption + "None of these images has two comparable angles."
    return (
        caption
        + "The second figure shows the images with the most evenly weighted angles: the image, "
        "and the image rotated upright by either mode, with the mode's weight and its distance "
        "from the best. " + sense_of_angle(m.look.origin)
    )


def _histograms(probe: Probe, modes: Modes, found: dict[str, ClassSymmetry]) -> Picture:
    posterior = angle_posterior(modes.relative, modes.weight, modes.std_deg)
    means = [posterior[probe.classes == name].mean(0) for name in found]
    orders = [one.order or 0 for one in found.values()]
    names = [f"{probe.kind} {name}".strip() for name in found]
    fig = pose_figures.mode_histograms(np.stack(means), orders, names)
    alt = "Mean posterior of the angle relative to its most probable value, one row per class"
    return Picture.of(fig, "symmetry.png", alt)


def _pairs(m: ReportData, probe: Probe, modes: Modes, chosen: Integers) -> Picture:
    """Show images and their copies rotated upright by the two best modes."""
    second = second_way_up(modes)[chosen]
    images = grids.as_pictures(probe.batch.image[torch.as_tensor(chosen)].cpu().numpy())
    ways, captions = [], []
    for mode in (np.zeros_like(second), second):
        angle = modes.angle_deg[chosen, mode]
        ways.append(_upright(images, angle, modes.shift_px[chosen, mode]))
        turn = wrap_deg(angle - modes.angle_deg[chosen, 0])
        weight = modes.weight[chosen, mode]
        captions.append(
            [
                f"{_percent(w)}" + (f", {t:+.0f}°".replace("-", "−") if mode.any() else "")
                for w, t in zip(weight, turn, strict=True)
            ]
        )
    names = [f"{probe.kind} {name}".strip() for name in probe.classes[chosen]]
    fig = pose_figures.two_ways_up(images, ways, names, captions, m.look)
    return Picture.of(fig, "ambiguous.png", "The most ambiguous images, upright by either angle")


def _upright(images: Floats, angle_deg: Floats, shift_px: Floats) -> Floats:
    """Rotate images upright; pixels from beyond their edge get the image's median."""
    upright, inside = grids.align(images, angle_deg, shift_px)
    extra = [1] * (upright.ndim - 3)
    median = np.median(images.reshape(len(images), -1), axis=1).reshape(-1, 1, 1, *extra)
    return np.asarray(upright + (1 - inside.reshape(*inside.shape, *extra)) * median)
