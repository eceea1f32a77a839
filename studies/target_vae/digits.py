"""Digits rotated and shifted: MNIST(N) and MNIST(U), the fits of Tables 1 to 4, and their twins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.config import merge
from modpose.plot.grids import Floats
from studies.common.conduct import Study
from studies.common.samples import Made, Sample, save_array
from studies.common.study import Fit, Options, Result
from studies.target_vae import digit_tables as tables
from studies.target_vae.budgets import Contender
from studies.target_vae.common import (
    By,
    Setting,
    eight_bit,
    make_fit,
    of_contenders,
    sample_once,
)
from studies.target_vae.digit_findings import Found, find

BOX = 50
SHIFT = 5.0
"""Standard deviation of the shifts, pixels."""
ANGLE = 45.0
"""Standard deviation of the angles of MNIST(N), degrees."""


@dataclass(frozen=True)
class Digits:
    """One of the two sets.

    Attributes
    ----------
    name, title
        In names of runs, and in tables.
    angle_deg
        Standard deviation of the angles; None is uniform on the circle.
    """

    name: str
    title: str
    angle_deg: float | None

    @property
    def said(self) -> str:
        """Say how the digits are rotated."""
        return "uniformly" if self.angle_deg is None else f"by N(0, {self.angle_deg:g}²) degrees"


UNIFORM = Digits("uniform", "MNIST(U)", None)
NORMAL = Digits("normal", "MNIST(N)", ANGLE)


def prepare(setting: Setting) -> Study:
    """Make both sets, and say which fits they need."""
    fits = {digits: digit_fits(setting, digits) for digits in (NORMAL, UNIFORM)}
    samples = [sample_of(setting, digits) for digits in fits]

    def show(results: Mapping[str, Result], page: Any) -> Any:
        found = {d.title: _found(setting, of_contenders(fits[d], results)) for d in fits}
        return tables.show(
            found,
            setting.plan.turned,
            setting.plan.rotations,
            setting.seed,
            mnist=setting.find("mnist.npz") is not None,
            page=page,
        )

    return Study(
        "Rotated and shifted digits: Tables 1, 2 and 3, Figures 2, 3, 6 and 7",
        [*(f"- *{d.title}*: {s.description}" for d, s in zip(fits, samples, strict=True)), SAID],
        [fit for each in fits.values() for fit in each.values()],
        show,
    )


def prepare_ablation(setting: Setting) -> Study:
    """Say which fits of MNIST(U) the ablation needs; variants 4 to 6 are shared."""
    whole = {
        c: fit
        for c, fit in digit_fits(setting, UNIFORM).items()
        if c.recipe == "target-vae" and c.z_dim == 2
    }
    variants = {c: _fit(setting, UNIFORM, c) for c in setting.plan.ablation}
    fits = variants | whole

    def show(results: Mapping[str, Result], page: Any) -> Any:
        return tables.show_ablation(_found(setting, of_contenders(fits, results)), page)

    return Study(
        "What the parts are worth: Table 4",
        [
            "MNIST(U) as above. Variant 1 has an ordinary convolution; variant 2 a group "
            "convolution whose rotation is not inferred; variant 3 infers it without adding its "
            "angle; variants 4 to 6 are the whole model with 4, 8 and 16 rotations."
        ],
        list(fits.values()),
        show,
    )


def prepare_offset(setting: Setting) -> Study:
    """P4 with and without the angle's offset, and P8 (z 2 and 32), on the same images."""
    sizes = setting.plan.offset
    small = replace(
        setting,
        plan=replace(setting.plan, uniform=sizes, as_printed=False),
        samples=setting.samples / "offset",
    )
    fits = {c: _fit(small, UNIFORM, c, sizes.options) for c in sizes.contenders}
    fits = {c: replace(fit, name=f"offset-{c.slug}") for c, fit in fits.items()}
    laid = ", ".join(f"`{name}`" for name in assignments(sizes.options))

    def show(results: Mapping[str, Result], page: Any) -> Any:
        return tables.show_offset(_found(small, of_contenders(fits, results)), page)

    return Study(
        "With and without the angle's offset: variants 3 and 4 of Table 4",
        [
            sample_of(small, UNIFORM).description,
            "The same images for all, two dimensions of content where the name says no other. In "
            "variant 3 the angle of a cell's rotation is not added to what is inferred; it has one "
            f"output more, to tell any angle. Recipe `target-vae` with {laid}, in all alike.",
        ],
        list(fits.values()),
        show,
    )


def assignments(options: Options, prefix: str = "") -> list[str]:
    """Write nested options as the command line has them."""
    said = []
    for key, value in options.items():
        name = f"{prefix}{key}"
        nested = isinstance(value, Mapping)
        said += assignments(value, f"{name}.") if nested else [f"{name}={value}"]
    return said


def null_fits(setting: Setting) -> dict[str, Fit]:
    """A fit of each set, whose null model is asked for."""
    contender = setting.plan.uniform.contenders[0]
    return {d.title: _fit(setting, d, contender) for d in (NORMAL, UNIFORM)}


SAID = (
    "Bernoulli likelihood on grey values; the priors are the distributions that the images were "
    "made with. A *twin* is the same digit with pose zero in the same box: the inferred pose of "
    "the transformed image, minus that of its twin, is compared with the truth. Labels are used "
    "for scores only."
)


# --- data -------------------------------------------------------------------------------------


def sample_of(setting: Setting, digits: Digits) -> Sample:
    """Rotated and shifted digits, the last of them held out."""
    words = "MNIST" if setting.find("mnist.npz") else "Digits of a built-in font, each tilted a bit"
    sizes = setting.plan.uniform
    description = (
        f"{words}, turned {digits.said} and shifted by N(0, {SHIFT:g}²) px on each axis in a box "
        f"of {BOX} × {BOX} px; at most {sizes.images:,} to fit and {sizes.held_out:,} held out."
    )
    return sample_once(
        setting, f"digits-{digits.name}", description, lambda: _make(setting, digits)
    )


def _make(setting: Setting, digits: Digits) -> Made:
    from modpose.simulate.digits import transform

    pictures, labels, n_test = pictures_and_labels(setting)
    images, truth = transform(
        pictures, box=BOX, angle_std_deg=digits.angle_deg, shift_std_px=SHIFT, seed=setting.seed
    )
    return eight_bit(images), n_test, truth.assign(label=labels)


def twins(setting: Setting) -> NDArray[np.uint8]:
    """Return the held-out digits with pose zero in the same box, (n, BOX, BOX)."""
    from modpose.simulate.digits import transform

    path = setting.samples / "digits-twins" / "images.npy"
    if not path.is_file():
        pictures, _, n_test = pictures_and_labels(setting)
        upright, _ = transform(pictures[-n_test:], box=BOX, angle_std_deg=0.0)
        save_array(path, eight_bit(upright))
    images: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    return images


def pictures_and_labels(setting: Setting) -> tuple[Floats, NDArray[np.int64], int]:
    """Return pictures (N, 28, 28) in [0, 1], their digits, and how many at the end to hold out."""
    sizes, file = setting.plan.uniform, setting.find("mnist.npz")
    if file is not None:
        return _mnist(file, sizes.images, sizes.held_out)
    from modpose.simulate.digits import glyphs, transform

    n = sizes.images + sizes.held_out
    rng = np.random.default_rng(setting.seed)
    labels = rng.integers(10, size=n)
    upright = glyphs("0123456789", 28)[labels]
    tilted, _ = transform(upright, box=28, angle_std_deg=4.0, seed=setting.seed + 1)
    return tilted, labels, sizes.held_out


def _mnist(file: Path, most: int, most_held_out: int) -> tuple[Floats, NDArray[np.int64], int]:
    with np.load(file, allow_pickle=False) as arrays:
        train, test = arrays["x_train"][:most], arrays["x_test"][:most_held_out]
        labels = np.concatenate([arrays["y_train"][:most], arrays["y_test"][:most_held_out]])
    pictures = np.concatenate([train, test]).astype(np.float32) / 255
    return pictures, labels.astype(np.int64), len(test)


# --- fits -------------------------------------------------------------------------------------


def digit_fits(setting: Setting, digits: Digits) -> dict[Contender, Fit]:
    """Lay out the fits of one of the sets."""
    sizes = setting.plan.uniform if digits is UNIFORM else setting.plan.normal
    return {c: _fit(setting, digits, c) for c in sizes.contenders}


def _fit(
    setting: Setting, digits: Digits, contender: Contender, laid: Options | None = None
) -> Fit:
    sizes = setting.plan.uniform if digits is UNIFORM else setting.plan.normal
    model: dict[str, Any] = {
        "likelihood": {"kind": "bernoulli"},
        "shift": {"prior": "gaussian", "std_px": SHIFT},
    }
    more: dict[str, Any] = {"data": {"normalize": "range"}, "model": model}
    if digits.angle_deg is not None:
        model["rotation"] = {"prior": "gaussian", "std_deg": digits.angle_deg}
        more["train"] = {"augment": {"rotate": "none"}}
    sample = sample_of(setting, digits)
    more = merge(more, dict(laid or {}))
    return make_fit(setting, sizes, sample, f"digits-{digits.name}", contender, more)


def _found(setting: Setting, by: By) -> dict[Contender, Found]:
    make = partial(twins, setting)
    return {contender: find(contender, result, make) for contender, result in by.items()}
