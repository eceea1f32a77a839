"""Places of content of a run, drawn by its sharp maps if it has some, or by its model."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.config.model import SpectralConfig
from modpose.content.few_axes import FewAxes
from modpose.content.paths import dense_path
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.infer.latents import content_columns, content_of_table
from modpose.outputs.content_maps import holds_content_maps, sharp_columns, stored_content_maps
from modpose.outputs.volumes import usual_error

if TYPE_CHECKING:
    import pandas as pd

    from modpose.content_maps import ContentMaps
    from modpose.run import Run

Floats = NDArray[np.floating]


class Places:
    """Places of content.

    Parameters
    ----------
    run
        A finished run.
    latents
        Its latents.

    Attributes
    ----------
    sharp
        Whether sharp maps draw them.
    names
        Columns of the content: of the sharp maps if they have their own, else of the model.
    z
        (N, k) content of the images.
    """

    def __init__(self, run: Run, latents: pd.DataFrame) -> None:
        self.run = run
        self.names, self.z = content_columns(latents), content_of_table(latents)
        columns = sharp_columns(latents)
        self.sharp = bool(columns) and holds_content_maps(run)
        if self.sharp:
            own = latents[columns].to_numpy(np.float64)
            if not np.array_equal(own, self.z):
                self.names, self.z = columns, own

    @cached_property
    def model(self) -> PoseModel:
        """The model of the run."""
        return PoseModel.load(self.run.path)

    @cached_property
    def maps(self) -> ContentMaps:
        """The sharp maps of the run.

        Raises
        ------
        InputError
            If they were removed after the run was opened.
        """
        found = stored_content_maps(self.run)
        if found is None:
            raise InputError(f"{self.run.path}: the sharp maps are gone; open the run again")
        return found

    @property
    def quick(self) -> bool:
        """Whether a volume takes long, so that its three projections are drawn first.

        A network gives a projection from one plane of Fourier space; the volume needs all planes.
        """
        model = self.run.config.model
        spectral = isinstance(model.likelihood, SpectralConfig)
        return not self.sharp and spectral and model.field.kind != "principal"

    @cached_property
    def volumes(self) -> bool:
        """Whether volumes are drawn, not pictures."""
        return self.sharp or self.model.vae.imaging.shown_in == 3

    def checked(self, z: Floats) -> Floats:
        """Return a place (k,), or refuse it.

        Raises
        ------
        InputError
            If it is no place of this run's content.
        """
        if z.shape != self.z.shape[1:] or not np.isfinite(z).all():
            found = f"{z.size} values" if np.isfinite(z).all() else "not finite"
            raise InputError.of("decode", "the place", found, f"{self.z.shape[1]} numbers")
        return z

    def draw(self, z: Floats) -> NDArray[np.float32]:
        """Draw the volume or the picture at a place (k,)."""
        if self.sharp:
            return self.maps.volume(np.asarray(z, np.float64))
        drawn: NDArray[np.float32] = self.model.decode(np.asarray(z, np.float32)[None])[0]
        return drawn

    def path(self, ends: Floats, steps: int) -> Floats:
        """Return places (steps, k) on a path through images between two places (2, k).

        Raises
        ------
        InputError
            If there is no such path, or the ends are no places of this run's content.
        """
        if ends.shape != (2, self.z.shape[1]) or not np.isfinite(ends).all():
            raise InputError.of("path", "the ends", ends.shape, f"two of {self.z.shape[1]} numbers")
        if not self.sharp:
            return np.asarray(dense_path(self.z, ends, steps).z)
        return self._few.path(ends, steps, ("the start", "the end"))[1]

    @cached_property
    def _few(self) -> FewAxes:
        return FewAxes.of(self.z, usual_error(self.run, self.maps))
