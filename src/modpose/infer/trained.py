"""A trained model: its configuration, and its methods that infer and draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from modpose.config import Config
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.source import Source, open_source
from modpose.data.stack import Stack
from modpose.errors import InputError
from modpose.infer.encode import encode_dataset, importance_bounds, table_hypotheses
from modpose.infer.encoded import Encoded
from modpose.infer.likeness import check_alike, say_if_unlike
from modpose.limits import MOST_COPIES, check_seed, check_whole
from modpose.model.settings import SearchSettings
from modpose.model.vae import Vae
from modpose.run.alarm import Alarm, stored_alarms
from modpose.run.pretrained import is_fitted_to

if TYPE_CHECKING:
    import pandas as pd

    from modpose.affinity.known import KnownAffinity
    from modpose.data.record import Record
    from modpose.distributions.normal import DiagonalNormal

Floats = NDArray[np.float32]
Images = str | Path | NDArray[Any] | torch.Tensor | Stack | Source


class NotFittedInputError(InputError, NotFittedError):  # type: ignore[misc]
    """The model is used before it was fitted."""

    def __init__(self) -> None:
        super().__init__("the model is not fitted yet: call fit, or load one")


class TrainedModel:
    """A model with the results of its fit; :class:`modpose.PoseModel` fits, saves and loads it."""

    quiet: bool = False
    """No progress bars."""
    _vae: Vae | None = None
    _config: Config | None = None
    _environment: Mapping[str, Any] = MappingProxyType({})
    _metrics: Sequence[Mapping[str, float]] = ()
    _latents: pd.DataFrame | None = None
    _affinity: KnownAffinity | None = None
    _record: Record | None = None

    @property
    def vae(self) -> Vae:
        """The network, in evaluation mode."""
        if self._vae is None:
            raise NotFittedInputError
        return self._vae.eval()

    @property
    def config(self) -> Config:
        """The complete configuration that the model was fitted with."""
        if self._config is None:
            raise NotFittedInputError
        return self._config

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, seed, data, and how the fit ended; empty before a fit."""
        return dict(self._environment)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What looked wrong about the images or the fit; empty if nothing did."""
        return stored_alarms(self._environment)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.vae.coordinates.device

    def metrics(self) -> pd.DataFrame:
        """One row per epoch of the fit."""
        import pandas as pd

        return pd.DataFrame(list(self._metrics))

    def latents(self) -> pd.DataFrame:
        """Content and pose of the images that the model was fitted to."""
        if self._latents is None:
            raise NotFittedInputError
        return self._latents

    # --- inference ----------------------------------------------------------------------------

    def dataset(self, x: Images) -> Dataset:
        """Images, prepared in the same way as those that the model was fitted to."""
        source = x if isinstance(x, Source) else open_source(x, kind=self.config.data.kind)
        value_range = self._environment.get("value_range")
        dataset = dataset_of(
            source,
            self.config,
            held_out=False,
            value_range=None if value_range is None else (value_range[0], value_range[1]),
        )
        found, expected = (dataset.channels, *dataset.shape), (self.vae.channels, *self.vae.shape)
        if found != expected:
            raise InputError.of(
                source.stack.name, "the image (channels, rows, columns)", found, f"{expected}"
            )
        check_alike(dataset, self._environment, self.config.model.ctf == "auto")
        return dataset

    def encode(
        self,
        x: Images,
        search: bool | SearchSettings = False,
        rows: NDArray[np.int64] | None = None,
        copies: int = 1,
    ) -> Encoded:
        """Infer content and pose of each image.

        Parameters
        ----------
        x
            Images.
        search
            Search for the pose on a grid, by correlation with the model's prediction, and refine
            content and pose by gradient (only content if poses are given); True for the default
            settings.  A model with a lookup table needs this for images that it was not fitted to.
        rows
            Which of the images to encode; None: all.  Use this for a part of the images of a
            lookup table, which identifies an image by its position in the stack.
        copies
            Encode this number of evenly rotated copies of each image, then as many again from
            their consensus pose, and keep the consensus.  With 5 copies this is 10 times slower,
            but objects that look similar upside down are read the same way up more often.  Use an
            odd number, 5 or 15.  The model must infer an in-plane angle, with a uniform prior
            unless the encoder is ``polar``; not with ``search``.

        Raises
        ------
        InputError
            Without search, if the model has a lookup table instead of an encoder; with search, if
            the model infers no pose in two dimensions; with copies, if they may not be rotated.
        """
        check_whole("--copies", "the number", copies, 1, MOST_COPIES)
        table = self.config.model.encoder.kind == "table"
        if table and not search:
            raise InputError(
                "the model has a lookup table in place of an encoder: it knows only the images "
                "that it was fitted to (see latents); search finds the content and pose of others"
            )
        dataset = self.dataset(x)
        thorough = search if isinstance(search, SearchSettings) else SearchSettings()
        new = table and not self._fitted_to(dataset)
        anew = table_hypotheses(self.vae) if new else None
        encoded = self._encode(dataset, thorough if search else None, anew, rows, copies)
        if self._latents is not None:
            known = self._latents["elbo"].to_numpy()
            say_if_unlike(encoded.elbo, known, dataset.source.particles.name)
        return encoded

    def _fitted_to(self, dataset: Dataset) -> bool:
        return is_fitted_to(self.environment, self._record, dataset)

    def importance_bound(self, x: Images, samples: int = 100, seed: int = 0) -> Floats:
        """Estimate the importance-weighted bound (Burda et al. 2016) of each image.

        Parameters
        ----------
        x
            Images.
        samples
            Importance samples per image; with 1 it is the single-sample ELBO.
        seed
            Seed of the samples.

        Returns
        -------
        NDArray
            (N,) nats, on average between the ELBO and the log-likelihood.
        """
        check_whole("importance_bound", "samples", samples, 1, 1_000_000)
        check_seed("importance_bound", seed)
        dataset = self.dataset(x)
        return importance_bounds(
            self.vae,
            dataset,
            samples,
            device=self.device,
            seed=seed,
            quiet=self.quiet,
            fitted=self._fitted_to(dataset),
        )

    def decode(self, z: ArrayLike, pose_channel: ArrayLike | None = None) -> Floats:
        """Draw the objects upright and centred, without noise.

        Parameters
        ----------
        z
            (N, z_dim) content.
        pose_channel
            (N, p) or (p,) the pose channel, if the model has one; None uses the mean over the
            images that it was fitted to.

        Returns
        -------
        NDArray
            (N, H, W), (N, H, W, 3) or (N, D, H, W), in the units of the prepared images; from a
            model of projections, volumes whose sums along z are the images.
        """
        content = torch.as_tensor(np.array(z, dtype=np.float32), device=self.device)
        if content.dim() != 2 or content.shape[1] != self.config.model.z_dim:
            raise InputError.of(
                "decode", "the shape of z", tuple(content.shape), f"(N, {self.config.model.z_dim})"
            )
        channel = self._channel(pose_channel, len(content))
        few = self.vae.imaging.whole_batch(self.vae)
        cuts = [slice(i, i + few) for i in range(0, len(content), few)]
        return self._pictures(
            self.vae.decode(content[cut], None if channel is None else channel[cut]) for cut in cuts
        )

    def _channel(self, given: ArrayLike | None, count: int) -> torch.Tensor | None:
        """(N, p) pose channel to decode with; None if the model has none."""
        width = self.config.model.pose_channel
        if given is None and width:
            table = self.latents()
            given = table[[f"pose_{k}" for k in range(width)]].mean().to_numpy(np.float32)
        if given is None:
            return None
        values = np.array(given, dtype=np.float32)
        if values.shape not in ((width,), (count, width)) or not width:
            expected = f"({count}, {width})" if width else "none: the model has no pose channel"
            raise InputError.of("decode", "the shape of pose_channel", values.shape, expected)
        return torch.as_tensor(values, device=self.device).expand(count, width)

    def reconstruct(self, x: Images) -> Floats:
        """Draw the model's noise-free reconstruction of each image, in the pose of the image."""
        dataset = self.dataset(x)
        batches = dataset.batches(np.arange(dataset.n), self.vae.whole_batch)
        fitted = self._fitted_to(dataset)
        ready = (replace(batch.to(self.device), fitted=fitted) for batch in batches)
        return self._pictures(self.vae.reconstruct(batch) for batch in ready)

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw ``n`` upright objects with content from the prior N(0, I)."""
        check_whole("sample", "the number of objects", n, 1, 1_000_000)
        check_seed("sample", seed)
        z = np.random.default_rng(seed).standard_normal((n, self.config.model.z_dim))
        return self.decode(z)

    def _pictures(self, parts: Iterable[torch.Tensor]) -> Floats:
        """Concatenate parts (B, *shape, C) on the host; a single channel is dropped."""
        pictures = torch.cat([part.cpu() for part in parts])
        drawn: Floats = (pictures[..., 0] if pictures.shape[-1] == 1 else pictures).numpy()
        return drawn

    def _encode(
        self,
        dataset: Dataset,
        search: SearchSettings | None = None,
        hypotheses: DiagonalNormal | None = None,
        rows: NDArray[np.int64] | None = None,
        copies: int = 1,
    ) -> Encoded:
        return encode_dataset(
            self.vae,
            dataset,
            device=self.device,
            seed=self.config.seed,
            quiet=self.quiet,
            search=search,
            hypotheses=hypotheses,
            rows=rows,
            copies=copies,
            fitted=self._fitted_to(dataset),
        )
