"""Encoders and fields work on tensors alone, as the documentation says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_example_of_the_documentation_has_the_shapes_that_it_says() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("## Encoders and fields in your own")
    found = re.search(r"```python\n(.*?)```", rest, re.DOTALL)
    assert found is not None
    made: dict[str, Any] = {}
    exec(found[1], made)
    z_dim = made["config"].model.z_dim
    assert made["posterior"].content.mean.shape == (5, 1, z_dim)
    assert made["posterior"].content.log_std.shape == (5, 1, z_dim)
    assert made["posterior"].angle.mean.shape == (5, 1, 1)
    assert made["posterior"].shift.mean.shape == (5, 1, 2)
    assert made["values"].shape == (5, 100, 1)
    for part in (made["vae"].encoder, made["vae"].field):
        assert all(one.grad is not None for one in part.parameters())
