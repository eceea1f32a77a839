"""PoseModel: fit, encode, decode, reconstruct, sample, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from modpose.alarms.images import warn_before
from modpose.config import Config, merge, parse_config
from modpose.data.labels import read_labels
from modpose.data.opened import refuse_axes_of_table
from modpose.data.record import record_of
from modpose.data.source import Source, Wedge, open_source
from modpose.devices import chosen, usable_device
from modpose.errors import InputError
from modpose.infer.trained import Floats, Images, TrainedModel
from modpose.limits import (
    check_clusters,
    check_minutes,
)
from modpose.model.build import build_vae
from modpose.recipes import DEFAULT_RECIPE, recipe_config
from modpose.recipes.recipe import Options
from modpose.run import Run
from modpose.suggest import given_options, suggest, suited
from modpose.train.adapt import in_time
from modpose.train.checkpoint import put_weights, read_weights, save_weights
from modpose.train.session import announce, describe_fit, finish, start, train_model
from modpose.train.training_set import check_given_views, open_dataset
from modpose.train.unposed import find_poses, lacks_poses, with_unknown_poses

if TYPE_CHECKING:
    from modpose.affinity.known import KnownAffinity
    from modpose.affinity.matrix import Affinity


class PoseModel(TransformerMixin, BaseEstimator, TrainedModel):  # type: ignore[misc]
    """A model of images modulo pose, with the interface of a scikit-learn estimator.

    Parameters
    ----------
    recipe
        A named configuration (:data:`modpose.recipes.RECIPES`).
    z_dim
        Dimensions of content; None: that of the recipe.
    options
        Any other options, nested as in ``config.yaml`` (``{"train": {"lr": 1e-3}}``).
    max_minutes
        Largest training time; None trains for the configured epochs.
    seed
        Seed of all random numbers.
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
        self.recipe = recipe
        self.z_dim = z_dim
        self.options = options
        self.max_minutes = max_minutes
        self.seed = seed
        self.quiet = quiet

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
        tomograms: str | Path | None = None,
        tilt_series: bool = False,
    ) -> Self:
        """Learn from images.

        Parameters
        ----------
        x
            (N, H, W) or (N, H, W, 3) array or tensor, a stack, or a path.
        labels
            (N,) known classes, a column or a file; for colours and scores, used in training only
            with ``affinity``.
        affinity, sample_affinity
            Similarities of the classes, or of the images: a matrix, a file, or the name of a
            metric; see :func:`modpose.affinity.known.known_affinity`.
        clusters
            Number of clusters of content to find at the end.
        max_minutes, seed
            Override those of the constructor.
        datadir, index, poses, ctf, wedge, partial, tomograms, tilt_series
            Options for opening ``x``; see :func:`modpose.open_source`.  Not for an opened source.
        """
        minutes = self.max_minutes if max_minutes is None else max_minutes
        check_minutes(minutes)
        about = (datadir, index, poses, ctf, wedge, tomograms)
        if not isinstance(x, Source):
            options = merge(recipe_config(self.recipe), dict(self.options or {}))
            kind = parse_config(options, f"recipe {self.recipe}").data.kind
            x = open_source(
                x,
                kind=kind,
                datadir=datadir,
                index=index,
                poses=poses,
                ctf=ctf,
                wedge=wedge,
                partial=partial,
                tomograms=tomograms,
                tilt_series=tilt_series,
            )
            refuse_axes_of_table(x, kind)
        elif partial or tilt_series or any(value is not None for value in about):
            raise InputError(
                "fit: datadir, index, poses, ctf, wedge, partial, tomograms or tilt_series is "
                "given with a source, which is open already, expected them in open_source"
            )
        source = x
        check_clusters(clusters, source.n)
        config = self._resolve(source, self.seed if seed is None else seed)
        config = in_time(config, source, minutes)
        known = None if labels is None else read_labels(labels, source, partial=partial)
        announce(config, max_minutes=minutes)
        unposed = lacks_poses(source, config)
        if unposed:
            source = with_unknown_poses(source)
        dataset = open_dataset(source, config, known, affinity, sample_affinity)
        if unposed:
            dataset = find_poses(dataset, config, None, self.quiet)
        else:
            check_given_views(dataset, config)
        alarms = warn_before(dataset, config.model.field.point_group)
        learner, rows = start(dataset, config, max_minutes=minutes, quiet=self.quiet)
        train_model(
            learner, dataset, config, run=None, rows=rows, max_minutes=minutes, quiet=self.quiet
        )
        self._config, self._vae, self._metrics = config, learner.vae, rows
        self._affinity = cast("KnownAffinity | None", dataset.affinity)
        self._record = record_of(dataset)
        described = describe_fit(dataset, config, known, clusters, self._record)
        described |= {"alarms": alarms, "poses_found": True if unposed else None}
        self._latents, ending = finish(learner, dataset, config, described, rows, quiet=self.quiet)
        self._environment = described | ending
        return self

    def _resolve(self, source: Source, seed: int) -> Config:
        recipe = recipe_config(self.recipe)
        for_data = suggest(source, recipe)[1]

        def complete(for_data: Options) -> Config:
            values = merge(merge(for_data, recipe), given_options(source))
            values = merge(values, dict(self.options or {}))
            if self.z_dim is not None:
                values = merge(values, {"model": {"z_dim": self.z_dim}})
            return parse_config(values | {"seed": seed}, f"recipe {self.recipe}")

        return complete(suited(for_data, complete(for_data)))

    # --- the interface of scikit-learn --------------------------------------------------------

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

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Name the columns of :meth:`transform`: z_0, z_1, ….

        ``input_features`` is part of scikit-learn's protocol and has no effect.
        """
        return np.array([f"z_{k}" for k in range(self.config.model.z_dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return self._vae is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def set_params(self, **params: Any) -> Self:  # scikit-learn's protocol fixes this signature
        """Set constructor parameters."""
        for name in params:
            if name not in self.get_params():
                raise InputError(
                    f"set_params: there is no parameter '{name}', expected one of "
                    f"{', '.join(self.get_params())}"
                )
        super().set_params(**params)
        return self

    # --- files --------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> Run:
        """Write the model as a run folder (plain files without pickles)."""
        with Run.begin(
            path, self.config, self.environment, record=self._record, overwrite=overwrite
        ) as run:
            if self._affinity is not None:
                self._affinity.save(run.path)
            save_weights(run.path / "checkpoints" / "best.safetensors", self.vae.state_dict())
            run.write_latents(self.latents())
            run.write_metrics([dict(row) for row in self._metrics])
        return Run.open(path)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device | None = None) -> Self:
        """Read a trained model from its run folder, onto ``device``.

        The default is that of a function that takes a ``device``, while it runs; else a GPU if
        there is one, unless the model was trained with ``train.accelerator=cpu``.

        Raises
        ------
        InputError
            If this machine lacks the device, or the folder is no run that can be loaded.
        """
        run = Run.open(path)
        on_gpu = torch.cuda.is_available() and run.config.train.accelerator != "cpu"
        place = usable_device("--device", device or chosen() or ("cuda" if on_gpu else "cpu"))
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
        model._vae, model._config, model._environment = vae.to(place), config, environment
        model._metrics = run.epochs()
        model._affinity = run.known_affinity()
        model._record = run.record()
        model._latents = run.latents(partial=True) if run.finished else None
        return model
