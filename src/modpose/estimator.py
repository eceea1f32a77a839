"""PoseModel: fit, encode, decode, reconstruct, sample, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.alarms.images import warn_before
from modpose.config import Config, merge, parse_config
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.labels import read_labels
from modpose.data.record import record_of
from modpose.data.source import Source, Wedge, open_source
from modpose.data.stack import Stack
from modpose.errors import InputError
from modpose.fit import describe_fit, start, train_model
from modpose.infer.encode import encode_dataset, importance_bounds, table_hypotheses
from modpose.infer.encoded import Encoded
from modpose.infer.judge import judge_fit
from modpose.infer.latents import latents_table
from modpose.limits import (
    MOST_COPIES,
    check_clusters,
    check_minutes,
    check_seed,
    check_whole,
)
from modpose.model.build import build_vae
from modpose.model.settings import SearchSettings
from modpose.model.vae import Vae
from modpose.recipes import DEFAULT_RECIPE, recipe_config
from modpose.run import Run
from modpose.run.alarm import Alarm, stored_alarms
from modpose.run.pretrained import is_fitted_to
from modpose.suggest import given_options, suggest
from modpose.train.checkpoint import put_weights, read_weights, save_weights
from modpose.train.training_set import open_dataset

if TYPE_CHECKING:
    import pandas as pd

    from modpose.affinity.known import KnownAffinity
    from modpose.affinity.matrix import Affinity
    from modpose.data.record import Record
    from modpose.distributions.normal import DiagonalNormal

Floats = NDArray[np.float32]
Images = str | Path | NDArray[Any] | torch.Tensor | Stack | Source


class PoseModel:
    """A model of images modulo pose, with the manners of a scikit-learn estimator.

    Parameters
    ----------
    recipe
        A named configuration (:data:`modpose.recipes.RECIPES`).
    z_dim
        Dimensions of content; None takes the recipe's.
    options
        Any other options, nested as in ``config.yaml`` (``{"train": {"lr": 1e-3}}``).
    max_minutes
        Stop training after this long; None trains for the configured epochs.
    seed
        Seed of everything random.
    quiet
        No progress bars.

    Examples
    --------
    >>> from modpose import PoseModel
    >>> model = PoseModel("modpose", z_dim=1, max_minutes=1, quiet=True)  # doctest: +SKIP
    >>> found = model.fit(images).encode(images)  # doctest: +SKIP
    >>> found.z, found.rotation, found.shift  # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: str = DEFAULT_RECIPE,
        *,
        z_dim: int | None = None,
        options: Mapping[str, Any] | None = None,
        max_minutes: float | None = None,
        seed: int = 0,
        quiet: bool = False,
    ) -> None:
        check_minutes(max_minutes)
        self.recipe = recipe
        self.z_dim = z_dim
        self.options = options
        self.max_minutes = max_minutes
        self.seed = seed
        self.quiet = quiet
        self._vae: Vae | None = None
        self._config: Config | None = None
        self._environment: dict[str, Any] = {}
        self._metrics: list[dict[str, float]] = []
        self._latents: pd.DataFrame | None = None
        self._affinity: KnownAffinity | None = None
        self._record: Record | None = None

    @classmethod
    def from_recipe(
        cls, name: str, *, z_dim: int | None = None, options: Mapping[str, Any] | None = None
    ) -> Self:
        """Make an untrained model of a named recipe."""
        recipe_config(name)
        return cls(name, z_dim=z_dim, options=options)

    # --- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        x: Images,
        labels: str | Path | ArrayLike | None = None,
        *,
        affinity: str | Path | Affinity | None = None,
        sample_affinity: str | Path | ArrayLike | Affinity | None = None,
        clusters: int | None = None,
        max_minutes: float | None = None,
        seed: int | None = None,
        datadir: str | Path | None = None,
        index: str | Path | NDArray[Any] | None = None,
        poses: str | Path | None = None,
        ctf: str | Path | None = None,
        wedge: Wedge | None = None,
        partial: bool = False,
    ) -> Self:
        """Learn from images.

        Parameters
        ----------
        x
            (N, H, W) or (N, H, W, 3) array or tensor, a stack, or a path.
        labels
            (N,) known classes, a column or a file; kept to colour and score, trained on only with
            ``affinity``.
        affinity, sample_affinity
            How alike the classes, or the images themselves, are: a matrix, a file, or the name of
            a metric; see :func:`modpose.affinity.known.known_affinity`.
        clusters
            Number of clusters of content to find at the end.
        max_minutes, seed
            Override those of the constructor.
        datadir, index, poses, ctf, wedge, partial
            How ``x`` is opened; see :func:`modpose.open_source`.  Not for an opened source.
        """
        check_minutes(max_minutes)
        about = (datadir, index, poses, ctf, wedge)
        if not isinstance(x, Source):
            options = merge(recipe_config(self.recipe), dict(self.options or {}))
            x = open_source(
                x,
                kind=parse_config(options, f"recipe {self.recipe}").data.kind,
                datadir=datadir,
                index=index,
                poses=poses,
                ctf=ctf,
                wedge=wedge,
                partial=partial,
            )
        elif partial or any(value is not None for value in about):
            raise InputError(
                "fit: datadir, index, poses, ctf, wedge or partial is given with a source, which "
                "is open already, expected them in open_source"
            )
        source = x
        check_clusters(clusters, source.n)
        config = self._resolve(source, self.seed if seed is None else seed)
        known = None if labels is None else read_labels(labels, source, partial=partial)
        dataset = open_dataset(source, config, known, affinity, sample_affinity)
        alarms = warn_before(dataset)
        minutes = self.max_minutes if max_minutes is None else max_minutes
        learner, rows = start(dataset, config, max_minutes=minutes, quiet=self.quiet)
        train_model(
            learner, dataset, config, run=None, rows=rows, max_minutes=minutes, quiet=self.quiet
        )
        self._config, self._vae, self._metrics = config, learner.vae, rows
        self._affinity = cast("KnownAffinity | None", dataset.affinity)
        self._record = record_of(dataset)
        self._environment = describe_fit(dataset, config, known, clusters, self._record) | {
            "stopped": learner.state.stopped,
            "alarms": alarms,
        }
        encoded = self._encode(dataset)
        found = self._environment["clusters"]
        self._latents = latents_table(encoded, dataset, known, found, config.seed)
        self._environment["alarms"] = judge_fit(
            self._environment, dataset, rows, self._latents, self.vae, learner.state.stopped
        )
        return self

    def _resolve(self, source: Source, seed: int) -> Config:
        recipe = recipe_config(self.recipe)
        values = merge(merge(suggest(source, recipe)[1], recipe), given_options(source))
        values = merge(values, dict(self.options or {}))
        if self.z_dim is not None:
            values = merge(values, {"model": {"z_dim": self.z_dim}})
        return parse_config(values | {"seed": seed}, f"recipe {self.recipe}")

    # --- what a trained model knows -----------------------------------------------------------

    @property
    def vae(self) -> Vae:
        """The network, in evaluation mode."""
        if self._vae is None:
            raise InputError("the model is not fitted yet: call fit, or load one")
        return self._vae.eval()

    @property
    def config(self) -> Config:
        """The complete configuration that the model was fitted with."""
        if self._config is None:
            raise InputError("the model is not fitted yet: call fit, or load one")
        return self._config

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, seed, data, and how the fit ended."""
        return self._environment

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What looked wrong about the images or the fit; empty where nothing did."""
        return stored_alarms(self._environment)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.vae.coordinates.device

    def metrics(self) -> pd.DataFrame:
        """One row an epoch of the fit."""
        import pandas as pd

        return pd.DataFrame(self._metrics)

    def latents(self) -> pd.DataFrame:
        """Content and pose of the images that the model was fitted to."""
        if self._latents is None:
            raise InputError("the model is not fitted yet: call fit, or load one")
        return self._latents

    # --- inference ----------------------------------------------------------------------------

    def dataset(self, x: Images) -> Dataset:
        """Images prepared as those that the model was fitted to were."""
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
            Search for the pose on a grid, by correlation with the model's own prediction, and
            refine content and pose by gradient (content alone, where poses are given); True for
            the default settings.  A model with a lookup table has no other way to images that it
            was not fitted to.
        rows
            Which of the images to encode; None: all.  So a lookup table is asked about a part of
            the images that it was fitted to, for it knows an image by its place in the stack.
        copies
            Read each image so many times, turned evenly round the circle, and so many times again
            from the pose that most tell, and keep what most of these tell: twice so many times
            slower, and objects that look much the same upside down are read the same way up more
            often.  An odd number is best, 5 or 15.  Where an angle in the plane is inferred, with a
            uniform prior unless the encoder is polar, and nothing is searched.

        Raises
        ------
        InputError
            Without search, if the model has a lookup table in place of an encoder; with search,
            if the model infers no pose in two dimensions; with copies, if these may not be turned.
        """
        check_whole("--copies", "the number", copies, 1, MOST_COPIES)
        table = self.config.model.encoder.kind == "table"
        if table and not search:
            raise InputError(
                "the model has a lookup table in place of an encoder: it knows only the images "
                "that it was fitted to (see latents); search finds the content and pose of others"
            )
        dataset = self.dataset(x)
        if not search:
            return self._encode(dataset, rows=rows, copies=copies)
        thorough = search if isinstance(search, SearchSettings) else SearchSettings()
        new = table and not self._fitted_to(dataset)
        anew = table_hypotheses(self.vae) if new else None
        return self._encode(dataset, thorough, anew, rows, copies)

    def _fitted_to(self, dataset: Dataset) -> bool:
        return is_fitted_to(self._environment, self._record, dataset)

    def importance_bound(self, x: Images, samples: int = 100, seed: int = 0) -> Floats:
        """Estimate the importance-weighted bound (Burda et al. 2016) of each image.

        Parameters
        ----------
        x
            Images.
        samples
            Importance samples an image; with 1 it is the single-sample ELBO.
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
            (N, p) or (p,) what the field sees beside it, where the model has a pose channel; None
            takes the mean over the images that it was fitted to.

        Returns
        -------
        NDArray
            (N, H, W), (N, H, W, 3) or (N, D, H, W), in the units of the prepared images; from a
            model of projections, volumes whose sums along z are such images.
        """
        content = torch.as_tensor(np.array(z, dtype=np.float32), device=self.device)
        if content.dim() != 2 or content.shape[1] != self.config.model.z_dim:
            raise InputError.of(
                "decode", "the shape of z", tuple(content.shape), f"(N, {self.config.model.z_dim})"
            )
        channel = self._channel(pose_channel, len(content))
        few = self.vae.imaging.whole_batch(self.vae)
        with torch.no_grad():
            parts = []
            for i in range(0, len(content), few):
                beside = None if channel is None else channel[i : i + few]
                parts.append(self.vae.decode(content[i : i + few], beside))
            return self._pictures(parts)

    def _channel(self, given: ArrayLike | None, count: int) -> torch.Tensor | None:
        """(N, p) pose channel to decode with; None where the model has none."""
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
        """Draw what the model believes is under the noise, in each image's own pose."""
        dataset = self.dataset(x)
        batches = dataset.batches(np.arange(dataset.n), self.vae.whole_batch)
        fitted = self._fitted_to(dataset)
        ready = (replace(batch.to(self.device), fitted=fitted) for batch in batches)
        return self._pictures([self.vae.reconstruct(batch) for batch in ready])

    def sample(self, n: int, seed: int = 0) -> Floats:
        """Draw ``n`` upright objects with content from the prior N(0, I)."""
        check_whole("sample", "the number of objects", n, 1, 1_000_000)
        check_seed("sample", seed)
        z = np.random.default_rng(seed).standard_normal((n, self.config.model.z_dim))
        return self.decode(z)

    def _pictures(self, parts: list[torch.Tensor]) -> Floats:
        """Join parts (B, *shape, C); one channel is none."""
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

    # --- scikit-learn's manners ---------------------------------------------------------------

    def transform(self, x: Images) -> Floats:
        """Return the posterior mean of content, (N, z_dim)."""
        return self.encode(x).z

    def fit_transform(self, x: Images, y: str | Path | ArrayLike | None = None) -> Floats:
        """Fit, then return the posterior mean of content, (N, z_dim)."""
        columns = self.fit(x, y).latents()
        return columns[[f"z_{k}" for k in range(self.config.model.z_dim)]].to_numpy(np.float32)

    def inverse_transform(self, z: ArrayLike) -> Floats:
        """Draw the objects upright and centred: :meth:`decode`."""
        return self.decode(z)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters."""
        names = ("recipe", "z_dim", "options", "max_minutes", "seed", "quiet")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:  # scikit-learn's protocol fixes this signature
        """Set constructor parameters."""
        for name, value in params.items():
            if name not in self.get_params():
                raise InputError(
                    f"set_params: there is no parameter '{name}', expected one of "
                    f"{', '.join(self.get_params())}"
                )
            setattr(self, name, value)
        return self

    # --- files --------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> Run:
        """Write the model as a run folder (plain files; nothing pickled)."""
        with Run.begin(
            path, self.config, self._environment, record=self._record, overwrite=overwrite
        ) as run:
            if self._affinity is not None:
                self._affinity.save(run.path)
            save_weights(run.path / "checkpoints" / "best.safetensors", self.vae.state_dict())
            run.write_latents(self.latents())
            run.write_metrics(self._metrics)
        return Run.open(path)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device | None = None) -> Self:
        """Read a trained model from its run folder, onto ``device``.

        By default a GPU where there is one, unless it was trained with ``train.accelerator=cpu``.
        """
        run = Run.open(path)
        on_gpu = torch.cuda.is_available() and run.config.train.accelerator != "cpu"
        device = device or ("cuda" if on_gpu else "cpu")
        config, environment = run.config, run.environment
        model = cls(config.recipe, z_dim=config.model.z_dim, seed=config.seed)
        vae = build_vae(
            config,
            shape=environment["shape"],
            channels=environment["channels"],
            n_images=environment["n"],
        )
        run.check()
        best = run.path / "checkpoints" / "best.safetensors"
        put_weights(vae, read_weights(best), best)
        model._vae, model._config, model._environment = vae.to(device), config, environment
        model._metrics = run.epochs()
        model._affinity = run.known_affinity()
        model._record = run.record()
        model._latents = run.latents() if run.finished else None
        return model
