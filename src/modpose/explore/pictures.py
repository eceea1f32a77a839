"""Pictures of a run as PNG: a particle, the particle upright, and what the model draws."""

from __future__ import annotations

import io
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.explore.places import Places
from modpose.geometry.grids import lattice
from modpose.geometry.pose import Pose, sample_images
from modpose.geometry.rotations import rotation_2d
from modpose.outputs.upright import turn_upright
from modpose.plot import grids
from modpose.plot.grids import Floats
from modpose.plot.surface import surface_of

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.run import Run

Kind = Literal["particle", "upright", "reconstruction"]
KINDS: tuple[str, ...] = get_args(Kind)
"""The image as the model sees it, turned upright, and drawn by the model from its content."""

VIEWS = (
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
    ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
)
"""Rotations that show a volume along z, y and x."""


class Pictures:
    """Draws particles and places of content of a run; one drawing at a time.

    Parameters
    ----------
    run
        A finished run.
    latents
        Its latents.
    places
        What draws its content.
    """

    def __init__(self, run: Run, latents: pd.DataFrame, places: Places) -> None:
        self.run, self.latents, self.places = run, latents, places
        self._lock = threading.RLock()

    @cached_property
    def dataset(self) -> Dataset:
        """The images of the run, opened again."""
        return self.run.dataset()

    def prepare(self) -> None:
        """Load what draws and draw once, so that the first click does not wait."""
        with self._lock:
            self.place(self.places.z[0])

    def image(self, row: int, kind: str) -> bytes:
        """Draw an image of the run.

        Parameters
        ----------
        row
            Row of the latents.
        kind
            One of :data:`KINDS`.

        Returns
        -------
        A PNG file.

        Raises
        ------
        InputError
            If there is no such row or kind, or the image cannot be read.
        """
        if not 0 <= row < len(self.latents):
            raise InputError.of("picture", "the row", row, f"0 to {len(self.latents) - 1}")
        if kind not in KINDS:
            raise InputError.of("picture", "the kind", kind, ", ".join(KINDS))
        with self._lock:
            if kind == "reconstruction":
                return self.place(self.places.z[row])
            image = self.dataset.batch(np.array([row])).image.numpy()
            if kind == "upright" and image.ndim == 4:
                image = self._upright(image, row)
            return _png(grids.as_pictures(image)[0], self._natural)

    def _upright(self, image: NDArray[np.float32], row: int) -> NDArray[np.float32]:
        """Turn an image (1, C, H, W) upright by its inferred pose."""
        pose = self.latents.iloc[row]
        channels = image[0]
        many = np.ones(len(channels))
        shift = np.array([float(pose.get(f"shift_{axis}", 0.0)) for axis in "xy"])
        return turn_upright(
            channels,
            float(pose.get("angle_deg", 0.0)) * many,
            shift * many[:, None],
            (many * pose.get("mirrored", 0)) == 1,
            float(pose.get("scale", 1.0)) * many,
        )[None]

    def place(self, z: Floats, pose: Floats | None = None) -> bytes:
        """Draw a place of content (z_dim,) as a PNG: a picture, or three views of a volume.

        The views are central slices, or projections where volumes take long.

        Parameters
        ----------
        z
            (z_dim,).
        pose
            Of pictures: angle in degrees, and shift (x, y) in pixels; None: upright.

        Raises
        ------
        InputError
            If it is not a place of this run's content, or no pose.
        """
        z = self.places.checked(z)
        if pose is not None and (pose.shape != (3,) or not np.isfinite(pose).all()):
            raise InputError.of("decode", "the pose", pose.size, "an angle and two shifts")
        with self._lock:
            drawn = self._views(z) if self.places.quick else self._whole(z)
            if pose is not None and not self.places.volumes:
                drawn = _posed(drawn, pose)
            return _png(drawn, self._natural)

    def surface(self, z: Floats, height: float) -> bytes:
        """Return the surface of the volume at a place of content (z_dim,), for the page to turn.

        Parameters
        ----------
        z
            (z_dim,).
        height
            Level of the surface, in standard deviations of the volume above its mean.

        Returns
        -------
        As :meth:`modpose.plot.surface.Surface.packed`.

        Raises
        ------
        InputError
            If it is not a place of this run's content, or the model draws pictures.
        """
        z = self.places.checked(z)
        if not np.isfinite(height):
            raise InputError.of("surface", "the level", "not finite", "a number")
        with self._lock:
            if not self.places.volumes:
                raise InputError.of("surface", "the model", "of pictures", "one of volumes")
            volume = self.places.draw(z)
        return surface_of(volume, float(volume.mean() + height * volume.std())).packed()

    def slices(self, z: Floats) -> bytes:
        """Draw the central slices of the whole volume at a place of content, (z_dim,), as a PNG."""
        with self._lock:
            return _png(self._whole(self.places.checked(z)), self._natural)

    def _whole(self, z: Floats) -> Floats:
        """Draw the picture, or the central slices of the volume."""
        drawn = self.places.draw(z)
        return _slices(drawn) if self.places.volumes else drawn

    def _views(self, z: Floats) -> Floats:
        """Projections of the volume along z, y and x, side by side."""
        vae, device = self.places.model.vae, self.places.model.device
        assert vae.projection is not None
        turned = torch.tensor(VIEWS, device=device)
        content = torch.as_tensor(z, dtype=torch.float32, device=device).expand(len(turned), -1)
        with torch.no_grad():
            slices = vae.projection.slices(vae.field, content, turned)
            return np.concatenate(list(vae.projection.picture(slices).cpu().numpy()), axis=1)

    @property
    def _natural(self) -> bool:
        """Whether row 0 is drawn at the top, as in photographs."""
        environment, data = self.run.environment, self.run.config.data
        return data.normalize == "range" or environment["channels"] == 3


def _posed(picture: Floats, pose: Floats) -> Floats:
    """Turn and shift an upright picture (H, W[, 3]); pose as of :meth:`Pictures.place`."""
    image = torch.as_tensor(np.ascontiguousarray(picture), dtype=torch.float32)
    layers = image[None, None] if image.ndim == 2 else image.movedim(-1, 0)[None]
    angle, *shift = torch.as_tensor(pose, dtype=torch.float32)
    placed = Pose(rotation_2d(torch.deg2rad(angle)), torch.stack(shift))
    where = placed.to_object(lattice(tuple(layers.shape[2:])))[None]
    values = sample_images(layers, where, padding="border").reshape(*layers.shape[2:], -1)
    return np.asarray(values[..., 0] if image.ndim == 2 else values)


def _slices(volume: Floats) -> Floats:
    """Central slices of (D, H, W) across z, y and x, side by side."""
    middle = [side // 2 for side in volume.shape]
    parts = [volume[middle[0]], volume[:, middle[1]], volume[:, :, middle[2]]]
    height = max(len(part) for part in parts)
    return np.concatenate([np.pad(p, ((0, height - len(p)), (0, 0))) for p in parts], axis=1)


def _png(picture: Floats, natural: bool) -> bytes:
    """Write a picture (H, W) or (H, W, 3) as a PNG, grey levels from its own extremes."""
    from PIL import Image

    unit = grids.to_unit(picture, grids.grey_range(picture))
    upright = grids.drawn(unit[None], "upper" if natural else "lower")[0]
    file = io.BytesIO()
    pixels = np.ascontiguousarray(np.round(255 * upright)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
