"""modpose: images modulo pose.

Learns what an object is apart from where it sits and how it is turned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modpose.averaging.alignment import AlignSettings
    from modpose.averaging.run import align_subtomograms
    from modpose.config import Config
    from modpose.data.source import open_source
    from modpose.encoded import Encoded
    from modpose.errors import InputError, TrainingError
    from modpose.evaluate.alarms import Alarm, find_alarms
    from modpose.fit import fit_run, resume_run
    from modpose.model import PoseModel
    from modpose.recipes import RECIPES
    from modpose.run import Run

_HOME = {
    "Alarm": "modpose.evaluate.alarms",
    "AlignSettings": "modpose.averaging.run",
    "Config": "modpose.config",
    "Encoded": "modpose.encoded",
    "InputError": "modpose.errors",
    "PoseModel": "modpose.model",
    "RECIPES": "modpose.recipes",
    "Run": "modpose.run",
    "TrainingError": "modpose.errors",
    "align_subtomograms": "modpose.averaging.run",
    "find_alarms": "modpose.evaluate.alarms",
    "fit_run": "modpose.fit",
    "open_source": "modpose.data.source",
    "resume_run": "modpose.fit",
}

__all__ = [
    "RECIPES",
    "Alarm",
    "AlignSettings",
    "Config",
    "Encoded",
    "InputError",
    "PoseModel",
    "Run",
    "TrainingError",
    "align_subtomograms",
    "find_alarms",
    "fit_run",
    "open_source",
    "resume_run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that the command line starts fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'modpose' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
