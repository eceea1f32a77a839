"""Run the tutorials as notebooks, and make their pictures.

    python -m tools.notebooks                      # all tutorials, into docs/_build/notebooks
    python -m tools.notebooks galaxies --pictures  # one, and the pictures of its page

A tutorial is a page of the documentation in Jupytext's MyST format.  Each runs in an empty folder
of its own.  The pictures that its cells show become ``docs/images/tutorials/NAME-1.webp`` ..., and
``docs/images/made.json`` records the cells and the version that made them.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.figures import PICTURES, Made, cells_of, read_made, write_made

TUTORIALS = Path("docs/tutorials")
NOTEBOOKS = Path("docs/_build/notebooks")
WIDEST, QUALITY = 900, 80
"""Pixels and quality of the WebP pictures."""
SHOWN = re.compile(r"^!\[[^]]*\]\(\.\./images/tutorials/[^)]*\)\n?", re.MULTILINE)
"""Pictures of the page: a notebook shows its own."""


def run_tutorial(page: Path) -> Any:
    """Run the cells of a page in an empty folder; returns the notebook with its outputs."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(page, fmt="md:myst")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = SHOWN.sub("", cell.source)
    with tempfile.TemporaryDirectory(prefix="modpose-") as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=None, resources=resources).execute()
    return notebook


def pictures_of(notebook: Any) -> list[bytes]:
    """Return the pictures that the cells of a notebook show, as PNG files."""
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    found = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(picture) for picture in found if picture is not None]


def write_webp(png: bytes, path: Path) -> None:
    """Write a picture small, at most :data:`WIDEST` pixels wide."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WIDEST, 4 * WIDEST))
        small.save(path, "WEBP", quality=QUALITY, method=6)


def main() -> None:
    """Run the tutorials that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    known = sorted(path.stem for path in TUTORIALS.glob("*.md"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--pictures", action="store_true", help="Replace the pictures of the page.")
    arguments = parser.parse_args()
    NOTEBOOKS.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or known:
        page, began = TUTORIALS / f"{name}.md", time.perf_counter()
        notebook = run_tutorial(page)
        import nbformat

        nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if arguments.pictures:
            made = read_made()
            for number, png in enumerate(pictures_of(notebook), 1):
                path = PICTURES / "tutorials" / f"{name}-{number}.webp"
                write_webp(png, path)
                made[path.relative_to(PICTURES).as_posix()] = Made.now(page, cells_of(page))
            write_made(made)


if __name__ == "__main__":
    main()
