"""The published systems, each as its textbook and as modpose's recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import digits, textbook
from benchmarks.textbook import spatial_vae, target_vae
from modpose.config import Config, merge, parse_config
from modpose.data.batches import Batch
from modpose.distributions.normal import LOG_2PI, wrapped_entropy
from modpose.geometry.grids import half_box, lattice
from modpose.model.build import build_vae
from modpose.model.objective import Estimate, Objective
from modpose.recipes import recipe_config
from modpose.recipes.recipe import Options
from modpose.train.learner import Learner, set_up


@dataclass(frozen=True)
class Size:
    """Of networks and batches; None leaves all as they are.

    Attributes
    ----------
    hidden
        Units a layer, and kernels of a convolution.
    batch
        Images in a step of the textbook and of exact mode; other recipes have their own.
    """

    hidden: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class System:
    """A published model, on the data of its paper.

    Attributes
    ----------
    name
        Of the system.
    posing
        How its digits are rotated and shifted.
    make_textbook
        Units a layer (None: the published number) to the textbook's model.
    batch_size, lr
        Of the textbook, as published.
    bound
        (model, images, generator) to the single-sample bound of each image, (B,) nats.
    exact
        The recipe that trains as published.
    recipes
        Those that are to be faster.
    step_batch
        Images in a step of the textbook and of exact mode where steps are timed; an image costs
        about the same in a larger batch, which may not fit into memory.
    """

    name: str
    posing: digits.Posing
    make_textbook: Callable[[int | None], textbook.Textbook]
    batch_size: int
    lr: float
    bound: Callable[[textbook.Textbook, Tensor, torch.Generator], Tensor]
    exact: str
    recipes: tuple[str, ...]
    step_batch: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return (self.posing.box, self.posing.box)


def make_spatial(hidden: int | None = None) -> spatial_vae.SpatialVae:
    """Return the textbook's spatial-VAE on the lattice that modpose uses, with its priors."""
    torch.manual_seed(0)
    shape = (digits.SLIGHT.box, digits.SLIGHT.box)
    half = half_box(shape)
    return spatial_vae.SpatialVae(
        lattice(shape) / half,
        hidden=spatial_vae.HIDDEN if hidden is None else hidden,
        shift_std=digits.SLIGHT.shift_std_px / half,
    )


def make_target(hidden: int | None = None) -> target_vae.TargetVae:
    """Return the textbook's TARGET-VAE P8."""
    torch.manual_seed(0)
    sizes = target_vae.Sizes()
    if hidden is not None:
        sizes = sizes._replace(hidden=hidden, channels=hidden)
    box = digits.FAR.box
    return target_vae.TargetVae(box, digits.FAR.shift_std_px / half_box((box, box)), sizes=sizes)


def bound_of_spatial(
    model: textbook.Textbook, images: Tensor, generator: torch.Generator
) -> Tensor:
    """Bound with the exact KL of the wrapped angle in place of equation 3."""
    assert isinstance(model, spatial_vae.SpatialVae)
    terms = model.terms(images, model.noise(len(images), generator))
    log_std = model.encode(images)[1][:, model.z_dim]
    return terms._replace(kl_angle=LOG_2PI - wrapped_entropy(log_std)).elbo()


def bound_of_target(model: textbook.Textbook, images: Tensor, generator: torch.Generator) -> Tensor:
    """Bound with one cell drawn from q."""
    assert isinstance(model, target_vae.TargetVae)
    return model.bound(images, generator)


SPATIAL = System(
    name="spatial-vae",
    posing=digits.SLIGHT,
    make_textbook=make_spatial,
    batch_size=spatial_vae.BATCH_SIZE,
    lr=spatial_vae.LEARNING_RATE,
    bound=bound_of_spatial,
    exact="spatial-vae-paper",
    recipes=("spatial-vae",),
    step_batch=spatial_vae.BATCH_SIZE,
)
TARGET = System(
    name="target-vae",
    posing=digits.FAR,
    make_textbook=make_target,
    batch_size=target_vae.BATCH_SIZE,
    lr=target_vae.LEARNING_RATE,
    bound=bound_of_target,
    exact="target-vae-paper",
    recipes=("target-vae", "modpose"),
    step_batch=20,
)
SYSTEMS = {system.name: system for system in (SPATIAL, TARGET)}


# --- modpose ----------------------------------------------------------------------------------


def recipe_options(system: System, recipe: str, size: Size) -> Options:
    """Return a recipe's options with the sizes and the priors that the textbook has, too."""
    values = recipe_config(recipe)
    width = {} if size.hidden is None else {"hidden": size.hidden}
    encoder = width
    if size.hidden is not None and values["model"]["encoder"]["kind"] == "orbit":
        encoder = {"channels": size.hidden}
    model = {
        "z_dim": 2,
        "encoder": encoder,
        "field": width,
        "shift": {"std_px": system.posing.shift_std_px},
        "likelihood": {"kind": "bernoulli"},
    }
    return merge(values, {"model": model, "train": {"accelerator": "cpu"}})


def step_config(system: System, recipe: str, size: Size, precision: str = "32-true") -> Config:
    """Return the configuration that a contestant takes its steps with.

    In exact mode the encoder sees the images as they are, as in the textbook's step; other
    recipes are as they are.
    """
    values = merge(recipe_options(system, recipe, size), {"train": {"precision": precision}})
    if recipe == system.exact:
        batch = system.step_batch if size.batch is None else size.batch
        values = merge(values, {"train": {"augment": {"rotate": "none"}, "batch_size": batch}})
    return parse_config(values, recipe)


def make_learner(system: System, config: Config) -> Learner:
    """Return a modpose model with its optimiser."""
    return set_up(build_vae(config, shape=system.shape, channels=1, n_images=1), config)


def learner_step(
    learner: Learner, config: Config, images: Tensor, generator: torch.Generator
) -> None:
    """Take the step of modpose's training loop."""
    objective = learner.objective(
        as_batch(images),
        generator,
        Estimate(
            pixels=config.train.pixels,
            augment=config.train.augment.rotate == "encoder-input",
        ),
    )
    _climb(learner, objective)


def step_optimizers(learner: Learner, batch: Batch, generator: torch.Generator) -> None:
    """Take the step of modpose's training loop on a batch that is ready."""
    _climb(learner, learner.objective(batch, generator))


def _climb(learner: Learner, objective: Objective) -> None:
    loss = -objective.value().mean()
    for optimizer in learner.optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in learner.optimizers:
        optimizer.step()


def as_batch(images: Tensor) -> Batch:
    """Return images (B, H, W) as modpose takes them."""
    return Batch(torch.arange(len(images)), images.unsqueeze(1))
