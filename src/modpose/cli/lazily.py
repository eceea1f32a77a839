"""Lazy imports of the library: a module is read when a command first uses it.

``modpose --help`` is fast because nothing slow is imported before a command runs.  Python 3.15 has
``lazy import`` for this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _Unread(ModuleType):
    """A module whose file is read at the first access to an attribute."""

    def __getattr__(self, name: str) -> Any:
        loader = self.__loader__
        elsewhere = name.startswith("__") or FINDER in sys.meta_path or self._has_module(name)
        if elsewhere or not isinstance(loader, _Later):
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        self.__loader__ = loader.own
        loader.own.exec_module(self)
        return getattr(self, name)

    def _has_module(self, name: str) -> bool:
        """Return whether a package has a module of this name, which is imported by itself."""
        path = vars(self).get("__path__")
        return (
            path is not None and PathFinder.find_spec(f"{self.__name__}.{name}", path) is not None
        )


class _Later(Loader):
    """Make an empty module that another loader fills later."""

    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the empty module."""
        return _Unread(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it unread."""


class _Finder(MetaPathFinder):
    """Find modules of modpose, to be read later."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module like Python, and give it the lazy loader."""
        spec = PathFinder.find_spec(name, path, target) if name.startswith("modpose.") else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


FINDER = _Finder()


@contextmanager
def lazily() -> Iterator[None]:
    """Import modules of modpose without reading them.

    ``from modpose.data import source`` imports a module and works;
    ``from modpose.data.source import open_source`` would have to read it, and is an ImportError.
    """
    sys.meta_path.insert(0, FINDER)
    try:
        yield
    finally:
        sys.meta_path.remove(FINDER)
