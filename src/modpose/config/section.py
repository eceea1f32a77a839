"""What sections of a configuration share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Activation = Literal["tanh", "relu", "leaky-relu", "silu"]


class Frozen(BaseModel):
    """Base of all sections: immutable, and unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
