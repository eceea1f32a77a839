"""Optional packages: imported when a file needs them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from modpose.errors import InputError


def extra(module: str, name: str, needed_by: str | Path) -> Any:
    """Import a module of an extra.

    Parameters
    ----------
    module
        Name of the module.
    name
        The extra that installs it, as in ``modpose[name]``.
    needed_by
        The file or function that needs it; the message begins with it.

    Raises
    ------
    InputError
        If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise InputError(
            f"{needed_by}: reading it needs the package {package}; pip install 'modpose[{name}]'"
        ) from None
