"""Write the page of runs as a folder that opens without a server, to send to a colleague."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.content.clustering import cluster
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.explore.opened import OpenRun
from modpose.explore.page import offline_html
from modpose.explore.pictures import KINDS
from modpose.files.writing import Staging, all_or_nothing, holds_files, refuse_to_replace
from modpose.progress import bar
from modpose.run import Run

PAGE = "index.html"
MOST_IMAGES, MOST_SHARP = 2000, 500
"""Images that are drawn; and where sharp maps draw their content, which takes longer."""
MOST_PLACES = 100
SAMPLE = 10_000
"""Contents that are grouped to choose the places."""


@on_its_device
def write_folder(
    runs: Sequence[Run],
    out: str | Path,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    device: str | None = None,
) -> Path:
    """Write a folder with the page, the columns, selections and pictures of runs.

    Parameters
    ----------
    runs
        Finished runs.
    out
        The folder.
    overwrite
        Replace a folder that this function wrote.
    quiet
        No progress bar.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Returns
    -------
    The page, ``OUT/index.html``.  Beside it are pictures of at most 2,000 images, taken at random,
    and of 100 places of content: images that are nearest to the middles of 100 groups.

    Raises
    ------
    InputError
        If a run cannot be shown, or the folder holds other files.
    """
    folder = Path(out)
    _check(folder, overwrite)
    opened = [OpenRun(run) for run in runs]
    with all_or_nothing() as place:
        about = []
        for k, run in enumerate(opened):
            for path in (folder / f"run{k}").rglob("*"):
                if path.is_file():
                    place.remove(path)
            about.append(_write_run(run, folder, k, place, quiet))
        page = offline_html(json.dumps(about))
        place(folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def _check(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected the name of a folder")
    if not folder.exists() or not holds_files(folder):
        return
    ours = {PAGE, *(path.name for path in folder.glob("run[0-9]*"))}
    foreign = next((p for p in folder.iterdir() if p.name not in ours and p.name[0] != "."), None)
    if foreign is not None or not (folder / PAGE).is_file():
        raise InputError(f"{folder}: holds other files, expected an empty or a new folder")
    refuse_to_replace([folder], overwrite)


def _write_run(
    run: OpenRun, folder: Path, number: int, place: Staging, quiet: bool
) -> dict[str, Any]:
    """Write the files of one run; return what the page must know."""
    inside = folder / f"run{number}"
    about = run.about()
    about["columns"] = [*about["columns"], *run.input_columns()]
    columns = {}
    for k, column in enumerate(about["columns"]):
        name = f"columns/{k}.js"
        text = _base64(run.column(column["name"]).astype("<f4"))
        place(inside / name).write_text(f'window.MODPOSE_COLUMN = "{text}";\n')
        columns[column["name"]] = f"run{number}/{name}"
    rows = _some(len(run.latents), MOST_SHARP if run.places.sharp else MOST_IMAGES)
    kinds = [kind for kind in KINDS if run.run.has_images or kind == "reconstruction"]
    for row in bar(rows.tolist(), about["name"], quiet=quiet):
        for kind in kinds:
            place(inside / "images" / f"{row}-{kind}.png").write_bytes(
                run.pictures.image(row, kind)
            )
    places = _places(run)
    for k, z in enumerate(places):
        place(inside / "places" / f"{k}.png").write_bytes(run.pictures.place(z))
    return {
        "about": about,
        "columns": columns,
        "rows": rows.tolist(),
        "places": places.tolist(),
        "positions": _base64(run.selections.positions.astype("<i4")),
        "selections": [_selection(run, one.name, inside, place) for one in run.selections.all()],
    }


def _selection(run: OpenRun, name: str, inside: Path, place: Staging) -> dict[str, Any]:
    """Copy a selection, and tell the page about it."""
    [kept] = [one for one in run.selections.all() if one.name == name]
    mask = run.selections.mask(name)
    file = f"{name}.npy"
    shutil.copyfile(run.selections.folder / file, place(inside / "selections" / file))
    bits = _base64(np.packbits(mask, bitorder="little"))
    return {"name": name, "how": kept.how, "count": kept.count, "bits": bits}


def _some(n: int, most: int) -> NDArray[np.int64]:
    """Take so many rows at random, in order; all, if they are fewer."""
    return np.sort(np.random.default_rng(0).permutation(n)[:most])


def _places(run: OpenRun) -> NDArray[np.float64]:
    """Choose contents of images all over content, (P, z_dim)."""
    z = run.places.z
    z = z[_some(len(z), SAMPLE)]
    count = min(MOST_PLACES, len(np.unique(z, axis=0)))
    group = cluster(z, count, "kmeans")
    chosen = []
    for k in np.unique(group):
        members = z[group == k]
        far = np.linalg.norm(members - members.mean(axis=0), axis=1)
        chosen.append(members[far.argmin()])
    return np.array(chosen)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
