"""The files that a command reads, which none of its outputs may replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modpose.data.image_files import split_array_name
from modpose.data.inputs import files_of_source
from modpose.data.source import Source
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.run import Run

SELECTIONS = "selections"
"""Folder of a run that holds selections of its images, and what was written of them."""
RECORDED = ("input", "index", "poses", "ctf", "tomograms")
"""Entries of ``environment.json`` that name files."""


def files_of_run(run: Run, source: Source | None = None, *, images: bool = True) -> Iterator[Path]:
    """Yield the files of the run folder, and those that it was fitted to.

    Reports and selections, which were made from the run, are left out.

    ``source`` is what it was fitted to, where that is open already.  Without ``images`` the files
    that a table names are left out.
    """
    for path in run.path.rglob("*"):
        made = {"report", SELECTIONS} & set(path.relative_to(run.path).parts)
        if not made and path.is_file():
            yield path
    environment, config = run.environment, run.config
    named = [environment.get(name) for name in RECORDED]
    named += [config.model.wedge, getattr(config.model.encoder, "run", None)]
    named.append(getattr(config.model.field, "mask", None))
    for one in named:
        for name in one if isinstance(one, list) else [one]:
            if not isinstance(name, str):
                continue
            try:
                yield split_array_name(Path(name))[0]
            except InputError:
                continue
    if source is not None:
        yield from files_of_source(source)
    elif images and run.has_images:
        try:
            yield from files_of_source(run.dataset().source)
        except InputError:  # the images are gone, so nothing of theirs can be replaced
            return
