"""What is trained: a model with its optimisers, on its device, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modpose.config import Config
from modpose.data.batches import Batch
from modpose.errors import InputError
from modpose.memory import keep_freed_memory
from modpose.model.image_rows import rows_trained_in
from modpose.model.objective import WHOLE, Estimate, Objective
from modpose.model.vae import Vae
from modpose.train.epoch import Epoch
from modpose.train.placement import Placement


@dataclass
class TrainState:
    """The state of a training; saved with every checkpoint.

    ``freed`` is the step from which content is decoded (see ``train.delay_z_steps``).
    """

    epoch: int = 0
    step: int = 0
    freed: int = 0
    best_elbo: float = -math.inf
    best_epoch: int = 0
    halvings: int = 0
    seconds: float = 0.0
    stopped: str = ""


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` CPU threads inside this context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Learner:
    """A model with its optimisers, on its device."""

    placement: Placement
    vae: Vae
    optimizers: list[torch.optim.Optimizer]
    state: TrainState
    begun: dict[str, Any] | None = None
    """The part of an epoch that was done when the checkpoint was saved, which training continues:
    ``batches``, ``count`` and ``sums`` of its metrics, states of the generators."""
    sums: Tensor | None = None
    """What the images tell the model, once computed (:mod:`modpose.train.sums`)."""

    def objective(
        self, batch: Batch, generator: torch.Generator, how: Estimate = WHOLE
    ) -> Objective:
        """Evaluate the model with its precision; arguments as for :meth:`Vae.forward`."""
        with self.placement.autocast():
            found: Objective = self.vae(batch, generator=generator, how=how)
        return found.float()

    def training_state(self) -> dict[str, Any]:
        """Return everything besides the weights that resuming needs."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        begun = {} if self.begun is None else {"begun": self.begun}
        return {"state": asdict(self.state), "optimizers": optimizers} | begun

    def load_training_state(self, saved: dict[str, Any], path: Path) -> None:
        """Continue from a :meth:`training_state`; ``path`` is its file.

        Raises
        ------
        InputError
            If it is the state of another training.
        """
        try:
            self.state = TrainState(**saved["state"])
            for optimizer, values in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(values)
            fits = _is_state(self.state) and all(map(_moments_fit, self.optimizers))
            self.begun = saved.get("begun")
            if self.begun is not None:
                Epoch(self.placement.device, 0, self.state.epoch, self.begun)  # raises if not one
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError):
            fits = False
        if not fits:
            raise InputError(f"{path}: the checkpoint is of another training, or damaged")


def _is_state(state: TrainState) -> bool:
    """Return whether every value has the type, and the range, of those of a training."""
    values = asdict(state)
    typed = all(type(values[f.name]) is type(f.default) for f in fields(TrainState))
    numbers = [value for name, value in values.items() if name not in ("stopped", "best_elbo")]
    return typed and all(0 <= n < math.inf for n in numbers) and not math.isnan(state.best_elbo)


def _moments_fit(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimiser's moments have the shapes of its parameters and are finite."""
    return all(
        value.isfinite().all() and value.shape == (parameter.shape if name != "step" else ())
        for parameter, moments in optimizer.state.items()
        for name, value in moments.items()
        if isinstance(value, Tensor)
    )


def set_up(vae: Vae, config: Config) -> Learner:
    """Put a model on its device, with Adam for networks and sparse Adam for per-image rows."""
    keep_freed_memory()
    train = config.train
    placement = Placement.of(train)
    vae.to(placement.device)
    rows = rows_trained_in(vae)
    networks = [p for p in vae.parameters() if p not in rows and p.requires_grad]
    fused = placement.device.type in ("cpu", "cuda")  # not in every version that we accept
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(networks, lr=train.lr, fused=fused)]
    optimizers += [torch.optim.SparseAdam([row], lr=rate) for row, rate in rows.items()]
    for optimizer in optimizers:
        optimizer.register_step_post_hook(_tell_of_change)
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return Learner(placement, vae, optimizers, TrainState())


def _tell_of_change(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Count a change of every weight, which fused Adam leaves out (see :class:`nn.kept.Kept`)."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            torch.autograd.graph.increment_version(weight)
