"""Which models each study compares under each budget, on how many images, and for how long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modpose.config import merge
from modpose.recipes.recipe import PER_PIXEL
from studies.common.study import Budget, Options

BY_TIME = 1_000_000
"""So many epochs that the time ends the fit."""
POSELESS = ("vae", "beta-vae")
"""Recipes that infer no pose."""


@dataclass(frozen=True)
class Contender:
    """A row of the tables: a recipe, options laid on it, dimensions of content."""

    title: str
    recipe: str
    z_dim: int
    options: Options = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Return the title as tables have it, with the dimensions of content."""
        return f"{self.title} (z {self.z_dim})"

    @property
    def slug(self) -> str:
        """Return the title as run folders have it."""
        return f"{re.sub('[^a-z0-9]+', '-', self.title.lower())}-z{self.z_dim}"

    @property
    def has_pose(self) -> bool:
        """Whether the model infers rotation and shift."""
        return self.recipe not in POSELESS


def target_vae(rotations: int, z_dim: int, title: str = "", **encoder: bool) -> Contender:
    """TARGET-VAE with so many rotations of its kernels, and switches of its encoder."""
    options = {"model": {"encoder": {"rotations": rotations, **encoder}}}
    return Contender(title or f"TARGET-VAE P{rotations}", "target-vae", z_dim, options)


def modpose(z_dim: int) -> Contender:
    """Our own recipe."""
    return Contender("modpose", "modpose", z_dim)


CLASSES = Contender("modpose-classes", "modpose-classes", 16)
STARTED = replace(
    CLASSES,
    title="modpose-classes from subspaces",
    options={"train": {"start": {"kind": "subspaces"}}},
)
EMBEDDING = Contender("modpose-embedding", "modpose-embedding", 2)
MODPOSE = (modpose(2), EMBEDDING, modpose(16), CLASSES)


def _baselines(vae: int, spatial: int, field: Options) -> tuple[Contender, ...]:
    """VAE, β-VAE and spatial-VAE with the dimensions of content of the paper's Table 2.

    Parameters
    ----------
    vae, spatial
        Units of hidden layers, so that each has as many parameters as TARGET-VAE P8, as in the
        paper.
    field
        Of spatial-VAE's decoder.
    """
    both: Options = {"model": {"encoder": {"hidden": vae}, "field": {"hidden": vae}}}
    encoder: Options = {"model": {"encoder": {"hidden": spatial}, "field": field}}
    return (
        Contender("VAE", "vae", 4, both),
        Contender("β-VAE", "beta-vae", 4, both),
        Contender("spatial-VAE", "spatial-vae", 2, encoder),
    )


BASELINES = _baselines(89, 161, {})
"""0.466 million parameters each, as `target-vae` P8 has with two dimensions of content."""
BASELINES_PRINTED = _baselines(160, 279, {"hidden": 279})
"""0.859 million, as `target-vae-paper` has."""
VARIANTS = (
    target_vae(1, 2, "Variant 1: ordinary convolution"),
    target_vae(4, 2, "Variant 2: P4, rotation not inferred", infer_rotation=False),
    target_vae(4, 2, "Variant 3: P4, no offsets", add_offset=False),
)
"""Of the ablation, Table 4; variants 4 to 6 are P4, P8 and P16."""
WHOLE = tuple(target_vae(rotations, 2) for rotations in (4, 8, 16))
LARGE = tuple(target_vae(rotations, 32) for rotations in (4, 8, 16))


@dataclass(frozen=True)
class Sizes:
    """Sizes of one study.

    Attributes
    ----------
    images, held_out
        Largest numbers of images to fit and to score on.
    epochs, minutes
        What ends a fit; None if time does not.
    contenders
        The models compared.
    importance
        Held-out images, and samples of each, for the importance-weighted bound.
    options
        Laid on the recipe of every contender, where the study says so.
    """

    images: int
    held_out: int
    epochs: int
    minutes: float | None
    contenders: tuple[Contender, ...]
    importance: tuple[int, int] = (200, 100)
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A budget in full.

    Attributes
    ----------
    jobs
        Fits side by side.
    as_printed
        Training and sizes of the paper (recipes ``target-vae-paper``, ``spatial-vae-paper``);
        otherwise each recipe's own.
    small
        Tiny networks, to try everything in seconds.
    turned, rotations
        Held-out images that are rotated, and by how many angles, for Table 3.
    uniform, normal
        Digits turned uniformly, MNIST(U), and by N(0, 45²) degrees, MNIST(N).
    ablation
        The variants of Table 4 that ``uniform`` does not have; sizes are those of ``uniform``.
    offset
        Variants 3 and 4 side by side, trained on equally many images, and P8 with few and with
        many dimensions of content.
    several, fields
        The models of ``uniform`` that look for several objects, and in how many fields.
    sprites, galaxies, hinge, particles, views
        Of the other studies.
    snr
        Signal-to-noise ratios of the hinged protein.
    """

    jobs: int
    as_printed: bool
    small: bool
    turned: int
    rotations: int
    uniform: Sizes
    normal: Sizes
    ablation: tuple[Contender, ...]
    offset: Sizes
    several: tuple[Contender, ...]
    fields: int
    sprites: Sizes
    galaxies: Sizes
    hinge: Sizes
    particles: Sizes
    views: Sizes
    snr: tuple[float, ...]

    def lasting(self, minutes: float) -> Plan:
        """Return the plan with another time for every fit."""

        def lasts(sizes: Sizes) -> Sizes:
            return replace(sizes, minutes=minutes)

        return replace(
            self,
            uniform=lasts(self.uniform),
            normal=lasts(self.normal),
            sprites=lasts(self.sprites),
            galaxies=lasts(self.galaxies),
            hinge=lasts(self.hinge),
            particles=lasts(self.particles),
            views=lasts(self.views),
        )


P8 = target_vae(8, 2)
_SMOKE = Sizes(60, 24, 2, None, (target_vae(4, 2),), (8, 5))
_DIGITS = Sizes(8_000, 2_000, BY_TIME, 6.5, (), (20, 20))
"""A textbook decoder takes 25 ms per image and thread: with more images, going through them once
after a fit would take longer than the fit."""
_COMPARED = (P8, modpose(16), CLASSES, STARTED)
_SCALED = replace(_DIGITS, images=5_000, held_out=1_000, minutes=5.0, contenders=_COMPARED)
_FULL = Sizes(60_000, 10_000, 500, None, _COMPARED)
_FULL_DIGITS = replace(
    _FULL, contenders=(*BASELINES_PRINTED, *WHOLE, *LARGE, *MODPOSE, modpose(32))
)

_SMALL_ENCODER: Options = {
    "data": {"val_fraction": 0.02},
    "model": {
        "encoder": {"channels": 64, "kernel": 22, "padding": 1},
        "field": {"hidden": 256},
    },
    "train": {"pixels": 150},
}
"""Smaller than printed, so that a core sees a hundred thousand images in minutes."""
OFFSET = (VARIANTS[2], replace(WHOLE[0], title="Variant 4: P4, with offsets"))
_SHORTER = tuple(
    replace(p8, options=merge(dict(p8.options), {"train": {"epochs": 6}})) for p8 in (P8, LARGE[1])
)
"""Twice as many cells take twice as long."""
_OFFSET = Sizes(10_000, 1_000, 10, None, (*OFFSET, *_SHORTER), (50, 20), _SMALL_ENCODER)

PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        jobs=1,
        as_printed=False,
        small=True,
        turned=6,
        rotations=8,
        uniform=replace(_SMOKE, contenders=(BASELINES[0], target_vae(4, 2))),
        normal=replace(_SMOKE, contenders=(target_vae(4, 2),)),
        ablation=VARIANTS[:1],
        offset=replace(_SMOKE, contenders=OFFSET, options=_SMALL_ENCODER),
        several=(target_vae(4, 2),),
        fields=1,
        sprites=_SMOKE,
        galaxies=_SMOKE,
        hinge=replace(_SMOKE, contenders=(target_vae(4, 1),)),
        particles=_SMOKE,
        views=_SMOKE,
        snr=(0.5,),
    ),
    "scaled": Plan(
        jobs=2,
        as_printed=False,
        small=False,
        turned=40,
        rotations=160,
        uniform=replace(
            _DIGITS,
            contenders=(*BASELINES, *WHOLE, target_vae(8, 32), *MODPOSE),
        ),
        normal=replace(
            _DIGITS, contenders=(*BASELINES, P8, target_vae(8, 32), modpose(16), CLASSES)
        ),
        ablation=VARIANTS,
        offset=_OFFSET,
        several=(P8, modpose(16)),
        fields=16,
        sprites=_SCALED,
        galaxies=_SCALED,
        hinge=replace(_SCALED, contenders=(target_vae(8, 1), modpose(1))),
        particles=replace(_SCALED, contenders=(P8, modpose(2), CLASSES, STARTED)),
        views=replace(_SCALED, images=3_000, contenders=(P8, modpose(2))),
        snr=(0.5, 0.1, 0.05),
    ),
    "full": Plan(
        jobs=1,
        as_printed=True,
        small=False,
        turned=10_000,
        rotations=160,
        uniform=_FULL_DIGITS,
        normal=_FULL_DIGITS,
        ablation=VARIANTS,
        offset=_OFFSET,
        several=(P8, modpose(16)),
        fields=100,
        sprites=replace(_FULL, images=600_000),
        galaxies=_FULL,
        hinge=replace(
            _FULL, images=16_000, held_out=4_000, contenders=(target_vae(8, 1), modpose(1))
        ),
        particles=_FULL,
        views=replace(_FULL, images=9_000, held_out=1_000),
        snr=(0.5, 0.1, 0.05),
    ),
}

_PRINTED: Mapping[str, tuple[str, Options]] = {
    "target-vae": ("target-vae-paper", {}),
    "spatial-vae": ("spatial-vae-paper", {"train": {"delay_z_steps": 0}}),
    "vae": ("vae", {"train": {"lr": 2e-4}}),
    "beta-vae": ("beta-vae", {"train": {"lr": 2e-4}}),
}
_OURS: Options = {"train": {"schedule": "cosine"}}
"""The baselines' recipes alone have another schedule."""
_SMALL: Mapping[str, Options] = {
    "vae": {"encoder": {"hidden": 16}, "field": {"hidden": 16}},
    "beta-vae": {"encoder": {"hidden": 16}, "field": {"hidden": 16}},
    "spatial-vae": {"encoder": {"hidden": 16}, "field": {"hidden": 16}},
    "target-vae": {"encoder": {"channels": 4, "stride": 4}, "field": {"hidden": 16}},
    "modpose": {
        "encoder": {"angles": 16, "channels": 4, "hidden": 16},
        "field": {"hidden": 16},
    },
}


def configured(
    plan: Plan, sizes: Sizes, contender: Contender, more: Options, *, particles: bool = False
) -> tuple[str, dict[str, Any]]:
    """Return the recipe of a contender and the options that budget and study lay on it.

    Parameters
    ----------
    plan, sizes
        Training and sizes.
    contender
        The model.
    more
        What the study sets (likelihood, data, priors of the pose); the priors are left out where
        the model has no pose.
    particles
        Whether they are images of particles, for which the paper has a deeper decoder.
    """
    recipe, training = contender.recipe, _OURS
    if plan.as_printed:
        recipe, training = _PRINTED.get(contender.recipe, (contender.recipe, {}))
        if particles and contender.recipe == "target-vae":
            recipe = "target-vae-particles-paper"
    options: dict[str, Any] = {
        "data": {"val_fraction": 0.05},
        "model": {"z_dim": contender.z_dim},
        "train": {"epochs": sizes.epochs},
    }
    if plan.small:
        options["model"] |= _SMALL.get(contender.recipe, {})
    model = dict(more.get("model", {}))
    if not contender.has_pose:
        model = {name: value for name, value in model.items() if name not in ("rotation", "shift")}
    for laid in (training, contender.options, {**more, "model": model}):
        options = merge(options, dict(laid))
    measured = options["model"].get("likelihood", {}).get("kind") == "gaussian"
    if plan.as_printed and contender.recipe == "target-vae" and measured:
        options = merge(options, {"model": {"likelihood": PER_PIXEL}})
    return recipe, options
