"""Which part of modpose imports which, read from the source: every arrow must point down.

python -m tools.layers            # a line for each part, ground first
python -m tools.layers --svg FILE # the same as a picture
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "modpose"

LAYERS = (
    ("errors", "progress", "limits"),
    ("files", "geometry"),
    ("config",),
    ("recipes", "nn", "plot", "distributions"),
    ("observe",),
    ("data",),
    ("fourier",),
    ("backprojection", "simulate", "affinity"),
    ("run",),
    ("alarms", "suggest"),
    ("search", "model"),
    ("infer",),
    ("options", "train"),
    ("fit",),
    ("estimator",),
    ("evaluate",),
    ("outputs",),
    ("report",),
    ("cli",),
)
"""Parts of the package, ground first.  A part may import parts of its own row and below."""


@dataclass(frozen=True)
class Import:
    """One import of a part of ours by another.

    Attributes
    ----------
    module, line
        Where it stands.
    imported
        The module that is imported.
    inside
        Whether it stands inside a function.
    """

    module: str
    line: int
    imported: str
    inside: bool

    @property
    def parts(self) -> tuple[str, str]:
        """The part that imports, and the one that is imported."""
        return part_of(self.module), part_of(self.imported)


def part_of(module: str) -> str:
    """Return the part that ``modpose.part.module`` belongs to."""
    return module.split(".")[1]


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Name every module below the package's own ``__init__`` and ``__main__``."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        names = list(path.relative_to(source.parent).with_suffix("").parts)
        if names[-1] == "__init__":
            names.pop()
        if len(names) > 1 and names[1] != "__main__":
            found[".".join(names)] = path
    return found


def imports(source: Path = SOURCE) -> Iterator[Import]:
    """Yield every import of one part by another; those for type checkers and in functions, too."""
    known = modules(source)
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            for imported in _imported(node, known):
                if part_of(module) != part_of(imported):
                    yield Import(module, getattr(node, "lineno", 0), imported, id(node) in inside)


def _imported(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        while name.startswith("modpose.") and name not in known:
            name = name.rpartition(".")[0]
        if name in known:
            yield name


def row_of(part: str) -> int:
    """Return the row of :data:`LAYERS` that a part stands in."""
    return next(i for i, row in enumerate(LAYERS) if part in row)


def rising(found: list[Import]) -> list[Import]:
    """Imports that point up, or that close a circle within a row."""
    up = [one for one in found if row_of(one.parts[1]) > row_of(one.parts[0])]
    pairs = {one.parts for one in found}
    return up + [one for one in found if one.parts[::-1] in pairs and one not in up]


def drawn(found: list[Import]) -> str:
    """Draw the rows, ground at the bottom, and a line for each part that imports another."""
    arrows = sorted({one.parts for one in found})
    width, height, step = 940, 46 * len(LAYERS) + 20, 46
    place = {}
    boxes = []
    for i, row in enumerate(LAYERS):
        y = height - 30 - i * step
        for k, part in enumerate(row):
            x = width * (k + 1) / (len(row) + 1) + (60 if i % 2 else -60)
            place[part] = (x, y)
            boxes.append(
                f'<rect x="{x - 55:.0f}" y="{y - 13}" width="110" height="26" rx="5"/>'
                f'<text x="{x:.0f}" y="{y + 5}">{part}</text>'
            )
    lines = [
        f'<path d="M{place[a][0]:.0f},{place[a][1]} Q{(place[a][0] + place[b][0]) / 2 + 40:.0f},'
        f'{(place[a][1] + place[b][1]) / 2:.0f} {place[b][0]:.0f},{place[b][1]}"/>'
        for a, b in arrows
    ]
    style = (
        "rect{fill:#eef3fb;stroke:#34568b}text{font:13px sans-serif;text-anchor:middle;"
        "fill:#1b2a41}path{fill:none;stroke:#34568b;stroke-opacity:.16}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        f"<style>{style}</style>{''.join(lines)}{''.join(boxes)}</svg>\n"
    )


def main() -> None:
    """Print the parts, and leave with 1 where an import points up."""
    parser = argparse.ArgumentParser(prog="python -m tools.layers", description=__doc__)
    parser.add_argument("--svg", type=Path, help="Write the picture here.")
    arguments = parser.parse_args()
    found = list(imports())
    if arguments.svg is not None:
        arguments.svg.write_text(drawn(found), encoding="utf-8")
    for row in LAYERS:
        for part in row:
            below = sorted({one.parts[1] for one in found if one.parts[0] == part})
            print(f"{part:15} {', '.join(below)}")
    for one in rising(found):
        print(f"points up: {one.module}, line {one.line}, imports {one.imported}")
    raise SystemExit(bool(rising(found)))


if __name__ == "__main__":
    main()
