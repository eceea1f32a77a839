"""One step of several processes: the sum of their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modpose import ranks


def add_up_gradients(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Add up gradients over all processes.

    Dense ones travel together.  A parameter without a gradient in every process keeps none.

    Parameters
    ----------
    optimizers
        That of the networks, then those of rows of single images, whose gradients are sparse.
    """
    if not ranks.several():
        return
    dense, *rows = [_parameters(optimizer) for optimizer in optimizers]
    there = dense[0].new_tensor([p.grad is not None for p in dense])
    for p in dense:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    ranks.sum_together([there, *(p.grad for p in dense if p.grad is not None)])
    for p, used in zip(dense, there.tolist(), strict=True):
        p.grad = p.grad if used else None
    for p in (p for group in rows for p in group):
        p.grad = ranks.sum(torch.zeros_like(p).to_sparse(1) if p.grad is None else p.grad)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Average over all processes what layers of batch normalisation measured."""
    if not ranks.several():
        return
    size = len(ranks.gathered(None))
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            for measured in (layer.running_mean, layer.running_var):
                assert measured is not None
                measured.copy_(ranks.sum(measured / size))
