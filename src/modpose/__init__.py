"""modpose: images modulo pose.

Learns what an object is, apart from its rotation and position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modpose.alarms import Alarm
    from modpose.config import Config
    from modpose.data.source import open_source
    from modpose.errors import InputError, TrainingError
    from modpose.estimator import PoseModel
    from modpose.fit import fit_run, resume_run
    from modpose.infer.encoded import Encoded
    from modpose.infer.judge import find_alarms
    from modpose.parts import Shard, Waiting
    from modpose.pick.find import find_objects
    from modpose.pick.images import pick_images
    from modpose.recipes import RECIPES
    from modpose.run import Run
    from modpose.search.alignment import AlignSettings
    from modpose.search.classes2d.run import classify_images
    from modpose.search.classes2d.settings import Classes2dSettings
    from modpose.search.run import align_subtomograms
    from modpose.version import __version__

_HOME = {
    "__version__": "modpose.version",
    "Alarm": "modpose.alarms",
    "AlignSettings": "modpose.search.run",
    "Classes2dSettings": "modpose.search.classes2d.settings",
    "Config": "modpose.config",
    "Encoded": "modpose.infer.encoded",
    "InputError": "modpose.errors",
    "PoseModel": "modpose.estimator",
    "RECIPES": "modpose.recipes",
    "Run": "modpose.run",
    "Shard": "modpose.parts",
    "TrainingError": "modpose.errors",
    "Waiting": "modpose.parts",
    "align_subtomograms": "modpose.search.run",
    "classify_images": "modpose.search.classes2d.run",
    "find_alarms": "modpose.infer.judge",
    "find_objects": "modpose.pick.find",
    "fit_run": "modpose.fit",
    "open_source": "modpose.data.source",
    "pick_images": "modpose.pick.images",
    "resume_run": "modpose.fit",
}

__all__ = [
    "RECIPES",
    "Alarm",
    "AlignSettings",
    "Classes2dSettings",
    "Config",
    "Encoded",
    "InputError",
    "PoseModel",
    "Run",
    "Shard",
    "TrainingError",
    "Waiting",
    "__version__",
    "align_subtomograms",
    "classify_images",
    "find_alarms",
    "find_objects",
    "fit_run",
    "open_source",
    "pick_images",
    "resume_run",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that the command line starts fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'modpose' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
