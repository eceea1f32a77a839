"""The facts for checking a section: the rest of the configuration, and the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modpose.config.section import Frozen
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.config import Config


@dataclass(frozen=True)
class Facts:
    """Facts for checking sections; None if not known yet.

    Attributes
    ----------
    config
        The complete configuration.
    shape, channels
        Shape and channels of the preprocessed images.
    n_train
        Number of training images.
    ctf, wedge, poses
        Whether the model gets a CTF, a missing wedge, poses of the images.
    affinity
        Whether it gets affinities of classes or images.
    name
        Name of the data.
    """

    config: Config
    shape: tuple[int, ...] | None = None
    channels: int | None = None
    n_train: int | None = None
    ctf: bool | None = None
    wedge: bool | None = None
    poses: bool | None = None
    affinity: bool | None = None
    name: str = "the data"

    @property
    def dim(self) -> int | None:
        """2 for images, 3 for volumes."""
        return None if self.shape is None else len(self.shape)

    def refusal(self, option: str, found: object, expected: str) -> InputError:
        """Build the error for an option that does not fit the rest."""
        return InputError.of(f"recipe {self.config.recipe}", option, found, expected)

    def require(self, option: str, found: str, *allowed: str, beside: str) -> None:
        """Refuse a value that is not allowed ``beside`` another option."""
        if found not in allowed:
            raise self.refusal(option, found, f"{' or '.join(allowed)} {beside}")

    def require_dim(self, dim: int, *, beside: str) -> None:
        """Refuse volumes if images (``dim`` 2) are needed, and images if volumes (3) are needed."""
        if self.dim is not None:
            names = {2: "images", 3: "volumes"}
            self.require("the data", names[self.dim], names[dim], beside=beside)

    def require_shape(self, whose: str, dim: int, expected: str) -> None:
        """Refuse data that are not squares (``dim`` 2) or cubes (3) with one channel."""
        if self.shape is None or self.channels is None:
            return
        if len(self.shape) != dim or len(set(self.shape)) != 1 or self.channels != 1:
            found = f"{self.channels} of {'x'.join(map(str, self.shape))}"
            raise InputError.of(whose, "channels and shape of the data", found, expected)


def check_config(facts: Facts) -> None:
    """Let each section of the configuration refuse impossible combinations with these facts.

    Raises
    ------
    InputError
        If there is one; the message names the option, its value, and the expectation.
    """
    _check(facts.config, facts)


def _check(section: Frozen, facts: Facts) -> None:
    section.check(facts)
    for name in type(section).model_fields:
        part = getattr(section, name)
        if isinstance(part, Frozen):
            _check(part, facts)
