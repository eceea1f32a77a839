"""The base of all sections of a configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of all sections: immutable, and unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
