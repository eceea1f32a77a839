"""Which part of modpose imports which, read from the source: every arrow must point down.

An import inside a function is for a library that is slow or may be missing.

python -m tools.layers            # a line for each part, ground first
python -m tools.layers --svg FILE # the same as a picture
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "modpose"

LAYERS = (
    ("errors", "progress", "limits", "memory", "shared_memory", "version"),
    ("files", "geometry", "content", "parts", "ranks", "processes", "devices"),
    ("config",),
    ("recipes", "nn", "plot", "distributions"),
    ("observe",),
    ("data",),
    ("fourier",),
    ("backprojection", "simulate", "affinity"),
    ("run", "jobs"),
    ("alarms", "suggest"),
    ("search", "model"),
    ("infer", "content_maps"),
    ("options", "train"),
    ("fit",),
    ("estimator",),
    ("evaluate",),
    ("outputs", "pick"),
    ("report",),
    ("explore",),
    ("cli",),
)
"""Parts of the package, ground first.  A part may import parts of its own row and below."""


SLOW = (
    "gemmi",
    "h5py",
    "dscribe",
    "jinja2",
    "matplotlib",
    "numpy",
    "PIL",
    "pandas",
    "plotly",
    "pyarrow",
    "safetensors",
    "scipy",
    "sklearn",
    "starlette",
    "tifffile",
    "torch",
    "uvicorn",
    "zarr",
)
"""Libraries that take time to import, or that a user may not have."""


@dataclass(frozen=True)
class Import:
    """One import, by a module of ours.

    Attributes
    ----------
    module, line
        Where it stands.
    imported
        The module that is imported, of ours or of a library.
    inside
        Whether it stands inside a function.
    typing
        Whether it is for type checkers alone.
    """

    module: str
    line: int
    imported: str
    inside: bool
    typing: bool

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
    for one in all_imports(source):
        if one.imported.startswith("modpose.") and one.parts[0] != one.parts[1]:
            yield one


@cache
def all_imports(source: Path = SOURCE) -> tuple[Import, ...]:
    """Return every import of a module of ours or of a library."""
    return tuple(_all_imports(source))


def _all_imports(source: Path) -> Iterator[Import]:
    known = modules(source)
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        typing = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            for imported in _imported(node, known):
                line = getattr(node, "lineno", 0)
                yield Import(module, line, imported, id(node) in inside, id(node) in typing)


def _imported(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for name in [f"{node.module}.{alias.name}" for alias in node.names]:
            yield name if name in known else node.module


def needless(found: Sequence[Import]) -> list[Import]:
    """Imports inside functions that could stand at the top: they wait for nothing slow."""
    at_once: dict[str, set[str]] = {}
    for one in found:
        if not (one.inside or one.typing):
            at_once.setdefault(one.module, set()).add(one.imported)

    def loaded(module: str) -> set[str]:
        """Return all that comes with a module when it is imported."""
        seen, left = {module}, [module]
        while left:
            new = at_once.get(left.pop(), set()) - seen
            seen |= new
            left += new
        return seen

    return [
        one
        for one in dict.fromkeys(found)
        if one.inside
        and not any(
            name.partition(".")[0] in SLOW for name in loaded(one.imported) - loaded(one.module)
        )
    ]


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
    """Print the parts; leave with 1 where an import points up or stands too deep."""
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
    everything = all_imports()
    own = sum(one.inside and one.imported.startswith("modpose.") for one in everything)
    print(f"imports of our own inside functions: {own}")
    for one in needless(everything):
        print(f"could stand at the top: {one.module}, line {one.line}, imports {one.imported}")
    raise SystemExit(bool(rising(found) or needless(everything)))


if __name__ == "__main__":
    main()
