"""``train``: how the evidence lower bound is climbed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modpose.config.section import Frozen


class BetaSchedule(Frozen):
    """Weight of the content KL: ``end`` throughout, or a ramp from ``start`` to it.

    Ramps begin when content is let go (``train.delay_z_steps``); ``cyclic`` repeats, each cycle
    rising over its first half.
    """

    kind: Literal["constant", "linear", "cyclic"] = "constant"
    start: float = Field(0.0, ge=0)
    end: float = Field(1.0, ge=0)
    steps: int = Field(1000, ge=1)
    """Length of the ramp, or of one cycle, in training steps."""


class SoftCellsConfig(Frozen):
    """A Gumbel-softmax sample whose weights mix the parameters of the cells (TARGET-VAE)."""

    kind: Literal["soft"] = "soft"
    temperature: float = Field(1.0, gt=0)


class TopCellsConfig(Frozen):
    """An expectation over the most probable cells, each decoded by itself; nothing is mixed."""

    kind: Literal["top"] = "top"
    count: int = Field(4, ge=1)


CellsConfig = Annotated[SoftCellsConfig | TopCellsConfig, Field(discriminator="kind")]


class TrainConfig(Frozen):
    """How the ELBO is climbed."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(100, ge=1)
    chunk: int | None = Field(None, ge=1)
    """Images whose gradients are computed at once, to save memory; those of a batch are added up.
    null takes the whole batch."""
    lr: float = Field(1e-4, gt=0)
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    plateau_epochs: int = Field(10, ge=1)
    """``plateau``: halve the rate after so many epochs without a better validation ELBO."""
    warmup_steps: int = Field(0, ge=0)
    """Raise the rate from zero over so many steps."""
    stop_epochs: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better validation ELBO."""
    pixels: int | None = Field(None, ge=1)
    """Number of pixels, drawn afresh each step, that estimate the reconstruction term without
    bias; null takes every pixel."""
    augment_rotation: bool = False
    """Turn the encoder's input by a random angle and take it off the inferred one; for images
    turned any way, so not with a narrow ``gaussian`` prior of the angle."""
    delay_z_steps: int = Field(0, ge=0)
    """Hold content at zero for the first steps (at most a quarter of the run), so that pose is
    learned first."""
    beta: BetaSchedule = BetaSchedule()
    cells: CellsConfig = SoftCellsConfig()
    """How encoders with many hypotheses of the pose are trained; validation draws hard cells."""
    restarts: int = Field(1, ge=1)
    """Short starts from different seeds; the one with the best validation ELBO goes on."""
    restart_epochs: int = Field(5, ge=1)
    max_grad_norm: float | None = Field(None, gt=0)
    threads: int = Field(1, ge=1)
    """CPU threads of a fit: small networks on few pixels are slower with more than one; give more
    where every pixel of large images is decoded."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
