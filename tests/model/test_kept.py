"""A result is used again for the same tensors alone."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.nn.kept import Kept


def test_a_result_is_kept_for_the_same_tensor_only() -> None:
    kept, x, calls = Kept(), torch.ones(3), []

    def twice(given: Tensor) -> Tensor:
        def make() -> Tensor:
            calls.append(given)
            return 2 * given

        return kept("twice", (given,), make)

    assert twice(x) is twice(x)
    assert len(calls) == 1
    twice(x.clone())
    assert len(calls) == 2
    twice(x)
    x += 1
    assert torch.equal(twice(x), 2 * x)
    y = x.clone().requires_grad_()
    with torch.no_grad():
        twice(y)
    assert twice(y).requires_grad
