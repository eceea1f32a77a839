"""Choose images by cluster, by an expression over their columns, or by a region of content space.

Expressions are read by :func:`evaluate_where`, which walks the syntax tree and knows comparisons,
``and``/``or``/``not``, numbers, quoted text and column names; nothing else is ever evaluated.
"""

from __future__ import annotations

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.csv_reader import csv_rows
from modpose.data.particles import listed
from modpose.errors import SHOWN, InputError, shown
from modpose.files.text import number, read_utf8, whole_number

if TYPE_CHECKING:
    import pandas as pd

    from modpose.run import Run

Mask = NDArray[np.bool_]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def choose(
    run: Run, *, cluster: str | None = None, where: str | None = None, region: str | None = None
) -> Mask:
    """Mark the images of a run that meet every condition given.

    Parameters
    ----------
    run
        A finished run.
    cluster
        See :func:`in_clusters`.
    where
        See :func:`evaluate_where`; columns of the latents, and of the particles table.
    region
        See :func:`in_region`.

    Returns
    -------
    (N,) bool, in input order.

    Raises
    ------
    InputError
        No condition is given, or one is not as it should be.
    """
    if cluster is None and where is None and region is None:
        raise InputError("select: no condition is given, expected --cluster, --where or --region")
    latents = run.latents()
    mask = np.ones(len(latents), dtype=bool)
    if cluster is not None:
        mask &= in_clusters(latents, cluster)
    if where is not None:
        known = run.dataset().source.particles.table
        fresh = known[[column for column in known if column not in latents]]
        mask &= evaluate_where(where, latents.join(fresh))
    if region is not None:
        mask &= in_region(latents, region)
    return mask


# --- by cluster -------------------------------------------------------------------------------


def in_clusters(table: pd.DataFrame, text: str) -> Mask:
    """Mark the images of the clusters in ``text``, a comma-separated list such as ``1,3``.

    Parameters
    ----------
    table
        One row an image, with a column ``cluster``.
    text
        Cluster numbers as they stand in that column.

    Returns
    -------
    (N,) bool.

    Raises
    ------
    InputError
        There are no clusters, a number is not one, or a cluster does not exist.
    """
    if "cluster" not in table or table["cluster"].isna().all():
        raise InputError("--cluster: the run has no clusters, fit it with --clusters K")
    labels = table["cluster"].to_numpy()
    if labels.dtype.kind not in "iuf":
        raise InputError("--cluster: the column cluster of the run does not hold numbers")
    known = np.unique(labels[np.isfinite(labels.astype(np.float64))]).astype(int)
    parts = text.split(",")
    wanted = [n for n in map(whole_number, map(str.strip, parts)) if n is not None]
    if len(wanted) < len(parts):
        expected = "whole numbers separated by commas, such as 1,3"
        raise InputError.of("--cluster", "the list", shown(text), expected)
    for cluster in wanted:
        if cluster not in known:
            expected = f"one of {listed(known)}"
            raise InputError.of("--cluster", "the cluster", cluster, expected)
    return np.isin(labels, wanted)


# --- by expression ----------------------------------------------------------------------------


def evaluate_where(expression: str, table: pd.DataFrame) -> Mask:
    """Mark the rows of ``table`` for which ``expression`` holds.

    Parameters
    ----------
    expression
        Comparisons of column names with numbers, quoted text or other columns, joined with
        ``and``, ``or`` and ``not``; chains (``0 < z_0 < 1``) and lists (``cluster in (1, 3)``)
        are understood.
    table
        One row an image.

    Returns
    -------
    (N,) bool; a comparison with a missing value is false, ``!=`` apart.

    Raises
    ------
    InputError
        The expression is not of that form, names a column that does not exist, or compares a
        number with a text.
    """
    where = f"--where {shown(expression)}"
    if len(expression) > LONGEST:
        found = f"{len(expression):,} characters long"
        raise InputError.of(where, "the expression", found, f"at most {LONGEST:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python's remarks on odd syntax are refusals here
            tree = ast.parse(expression.strip(), mode="eval").body
        return _Where(table, where).condition(tree)
    except InputError:
        raise
    except (SyntaxError, Warning, ValueError, RecursionError, MemoryError):
        raise InputError.of(where, "the expression", "not readable", _FORM) from None


_FORM = "comparisons such as 'elbo > -700 and z_0 < 1'"
LONGEST = 10_000
"""Characters of an expression."""

Value = float | str | NDArray[Any]
"""A number or a text; numbers (N,), or texts (N,) as objects, NaN or None where missing."""


class _Where:
    """Evaluates the syntax tree of an expression over the rows of a table."""

    def __init__(self, table: pd.DataFrame, where: str) -> None:
        self.table, self.where = table, where

    def condition(self, node: ast.expr) -> Mask:
        """Evaluate a node that must be true or false for each row."""
        match node:
            case ast.BoolOp(op=op, values=parts):
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return np.asarray(combine.reduce([self.condition(part) for part in parts]), bool)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return ~self.condition(part)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                mask = np.ones(len(self.table), dtype=bool)
                for compare, right in zip(ops, rights, strict=True):
                    mask &= self._comparison(left, compare, right)
                    left = right
                return mask
        raise InputError.of(self.where, "a part of it", _written(node), _FORM)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Mask:
        """Evaluate one comparison, row by row."""
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List):
                raise InputError.of(self.where, "what follows 'in'", _written(right), "a list")
            hits = np.zeros(len(self.table), dtype=bool)
            for item in right.elts:
                hits |= self._comparison(left, ast.Eq(), item)
            return hits ^ isinstance(op, ast.NotIn)
        compare = _COMPARISONS.get(type(op))
        if compare is None:
            raise InputError.of(self.where, "a part of it", "'is'", _FORM)
        a, b = self._value(left), self._value(right)
        if _is_text(a) != _is_text(b):
            found = f"{_written(left)} against {_written(right)}"
            raise InputError.of(self.where, "a comparison", found, "two numbers or two texts")
        mask = np.full(len(self.table), isinstance(op, ast.NotEq))
        present = ~(_missing(a) | _missing(b)) & np.ones(len(self.table), dtype=bool)
        a, b = (x[present] if isinstance(x, np.ndarray) else x for x in (a, b))
        mask[present] = np.asarray(compare(a, b), dtype=bool)
        return mask

    def _value(self, node: ast.expr) -> Value:
        """Evaluate a node that must be a number, a text or a column."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return constant if isinstance(constant, str) else self._number(constant)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
                value = self._value(part)
                if not _is_text(value):
                    return -value if isinstance(sign, ast.USub) else value  # type: ignore[operator]
            case ast.Name(id=name):
                return self._column(name)
            case ast.BinOp(op=ast.Div(), left=ast.Name(id=group), right=ast.Name(id=name)):
                return self._column(f"{group}/{name}")  # as cryoSPARC names columns
        expected = "a number, a quoted text or the name of a column"
        raise InputError.of(self.where, "a part of it", _written(node), expected)

    def _number(self, value: float) -> float:
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            found = "a whole number of very many digits"
            raise InputError.of(self.where, "a part of it", found, "one of at most 64 bits")
        return value

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self.table:
            raise InputError(f"{self.where}: {_no_column(name, self.table.columns)}")
        values = self.table[name].to_numpy()
        if values.dtype.kind in "biuf":
            return values.astype(np.float64) if values.dtype.kind == "b" else values
        values = values.astype(object)
        texts = np.fromiter((isinstance(v, str) for v in values), bool, len(values))
        if not (texts | _missing(values)).all():
            expected = "a column of numbers or of text"
            raise InputError.of(self.where, f"the column {shown(name)}", "mixed", expected)
        return values


def _is_text(value: Value) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind == "O")


def _missing(value: Value) -> Mask:
    import pandas as pd

    return np.asarray(pd.isna(value), dtype=bool)


def _written(node: ast.expr) -> str:
    return shown(ast.unparse(node))


def _no_column(name: str, columns: Iterable[str]) -> str:
    """Say that a column does not exist, and which ones are near or there are."""
    names = [str(column) for column in columns]
    near = difflib.get_close_matches(name[:SHOWN], names, n=3) or names
    return f"there is no column {shown(name)}, expected one such as {listed(near)}"


# --- by region --------------------------------------------------------------------------------


def in_region(table: pd.DataFrame, text: str) -> Mask:
    """Mark the images whose content lies in a box or polygon.

    Parameters
    ----------
    table
        One row an image, with the columns of the region's two axes.
    text
        ``x0,y0,x1,y1`` in the axes ``z_0``, ``z_1``; or a CSV file with one corner a line, whose
        header, where it has one, names the two axes.

    Returns
    -------
    (N,) bool; points on the edge of a box count as inside.

    Raises
    ------
    InputError
        The text or file is not a region, or the table lacks an axis.
    """
    path = Path(text)
    if path.suffix.lower() in {".csv", ".txt"} or _is_file(path):
        axes, corners = _read_polygon(path)
    else:
        axes, corners = ("z_0", "z_1"), _parse_box(text)
    for axis in axes:
        if axis not in table:
            raise InputError(f"--region {text}: {_no_column(axis, table.columns)}")
        if table[axis].dtype.kind not in "iuf":
            raise InputError.of(f"--region {text}", f"the column {axis}", "text", "numbers")
    points = table[list(axes)].to_numpy(dtype=np.float64)
    if len(corners) == 2:
        (x0, y0), (x1, y1) = np.sort(corners, axis=0)
        x, y = points.T
        return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    from matplotlib.path import Path as Outline

    inside = np.asarray(Outline(corners).contains_points(points), dtype=bool)
    return np.asarray(inside & np.isfinite(points).all(axis=1), dtype=bool)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _parse_box(text: str) -> NDArray[np.float64]:
    """Read ``x0,y0,x1,y1`` as two opposite corners, (2, 2)."""
    box = [number(part.strip()) for part in text.split(",")]
    if len(box) != 4 or None in box:
        expected = "four numbers x0,y0,x1,y1 or the name of a CSV file of corners"
        raise InputError.of("--region", "the region", shown(text), expected)
    return np.array(box, dtype=np.float64).reshape(2, 2)


def _read_polygon(path: Path) -> tuple[tuple[str, str], NDArray[np.float64]]:
    """Read the axes' names and the corners, (M >= 3, 2), of a polygon."""
    axes = ("z_0", "z_1")
    corners: list[list[float]] = []
    first = True
    for line, cells in csv_rows(path, read_utf8(path, "a polygon", LARGEST)):
        values = [number(cell.strip()) for cell in cells]
        header, first = first and values == [None, None], False
        if header:
            axes = (cells[0].strip(), cells[1].strip())
            continue
        corner = [value for value in values if value is not None]
        if len(cells) != 2 or len(corner) != 2:
            found = shown(",".join(cells))
            raise InputError.of(path, f"line {line}", found, "two numbers x,y, a corner")
        corners.append(corner)
    if len(corners) < 3:
        raise InputError.of(path, "the number of corners", len(corners), "three or more")
    return axes, np.array(corners, dtype=np.float64)


LARGEST = 1 << 24
"""Bytes of a file of corners."""
