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

from modpose.errors import InputError

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
    known = np.unique(labels[~np.isnan(labels.astype(np.float64))]).astype(int)
    try:
        wanted = [int(part) for part in text.split(",")]
    except ValueError:
        expected = "whole numbers separated by commas, such as 1,3"
        raise InputError.of("--cluster", "the list", repr(text), expected) from None
    for number in wanted:
        if number not in known:
            expected = f"one of {', '.join(map(str, known))}"
            raise InputError.of("--cluster", "the cluster", number, expected)
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
        The expression is not of that form, or names a column that does not exist.
    """
    where = f"--where '{expression}'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python's remarks on odd syntax are refusals here
            tree = ast.parse(expression.strip(), mode="eval").body
        return _condition(tree, table, where)
    except (SyntaxError, Warning, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError.of(where, "the expression", "not readable", _FORM) from None


_FORM = "comparisons such as 'elbo > -700 and z_0 < 1'"


def _condition(node: ast.expr, table: pd.DataFrame, where: str) -> Mask:
    """Evaluate a node that must be true or false for each row."""
    match node:
        case ast.BoolOp(op=op, values=parts):
            combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
            masks = [_condition(part, table, where) for part in parts]
            return np.asarray(combine.reduce(masks), dtype=bool)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return ~_condition(part, table, where)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            mask = np.ones(len(table), dtype=bool)
            for compare, right in zip(ops, rights, strict=True):
                mask &= _comparison(left, compare, right, table, where)
                left = right
            return mask
    raise InputError.of(where, "a part of it", f"'{ast.unparse(node)}'", _FORM)


def _comparison(
    left: ast.expr, op: ast.cmpop, right: ast.expr, table: pd.DataFrame, where: str
) -> Mask:
    """Evaluate one comparison, row by row."""
    value = _value(left, table, where)
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, ast.Tuple | ast.List):
            raise InputError.of(where, "what follows 'in'", f"'{ast.unparse(right)}'", "a list")
        items = [_value(item, table, where) for item in right.elts]
        hits = [np.equal(value, item) for item in items]
        mask = np.broadcast_to(np.any(hits, axis=0), len(table)) if hits else np.zeros(len(table))
        return np.asarray(mask, dtype=bool) ^ isinstance(op, ast.NotIn)
    compare = _COMPARISONS.get(type(op))
    if compare is None:
        raise InputError.of(where, "a part of it", "'is'", _FORM)
    other = _value(right, table, where)
    try:
        return np.broadcast_to(np.asarray(compare(value, other), dtype=bool), len(table)).copy()
    except TypeError:
        found = f"'{ast.unparse(left)}' against '{ast.unparse(right)}'"
        raise InputError.of(where, "a comparison", found, "two numbers or two texts") from None


def _value(node: ast.expr, table: pd.DataFrame, where: str) -> Any:
    """Evaluate a node that must be a number, a text or a column."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name):
            if name not in table:
                raise InputError(f"{where}: {_no_column(name, table.columns)}")
            return table[name].to_numpy()
    expected = "a number, a quoted text or the name of a column"
    raise InputError.of(where, "a part of it", f"'{ast.unparse(node)}'", expected)


def _no_column(name: str, columns: Iterable[str]) -> str:
    """Say that a column does not exist, and which ones are near or there are."""
    names = [str(column) for column in columns]
    near = difflib.get_close_matches(name, names, n=3) or names
    return f"there is no column '{name}', expected one such as {', '.join(near)}"


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
    if path.suffix.lower() in {".csv", ".txt"} or path.is_file():
        axes, corners = _read_polygon(path)
    else:
        axes, corners = ("z_0", "z_1"), _parse_box(text)
    for axis in axes:
        if axis not in table:
            raise InputError(f"--region {text}: {_no_column(axis, table.columns)}")
    points = table[list(axes)].to_numpy(dtype=np.float64)
    if len(corners) == 2:
        (x0, y0), (x1, y1) = np.sort(corners, axis=0)
        x, y = points.T
        return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    from matplotlib.path import Path as Outline

    return np.asarray(Outline(corners).contains_points(points), dtype=bool)


def _parse_box(text: str) -> NDArray[np.float64]:
    """Read ``x0,y0,x1,y1`` as two opposite corners, (2, 2)."""
    try:
        box = np.array([float(part) for part in text.split(",")])
    except ValueError:
        box = np.empty(0)
    if box.size != 4 or not np.isfinite(box).all():
        expected = "four numbers x0,y0,x1,y1 or the name of a CSV file of corners"
        raise InputError.of("--region", "the region", repr(text), expected)
    return box.reshape(2, 2)


def _read_polygon(path: Path) -> tuple[tuple[str, str], NDArray[np.float64]]:
    """Read the axes' names and the corners, (M >= 3, 2), of a polygon."""
    try:
        lines = [line.split(",") for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path}: the polygon cannot be read ({reason})") from None
    axes = ("z_0", "z_1")
    if lines and len(lines[0]) == 2 and not all(_is_number(part) for part in lines[0]):
        axes = (lines[0][0].strip(), lines[0][1].strip())
        lines = lines[1:]
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or not all(_is_number(part) for part in line):
            raise InputError.of(path, f"corner {number}", repr(",".join(line)), "two numbers x,y")
    if len(lines) < 3:
        raise InputError.of(path, "the number of corners", len(lines), "three or more")
    return axes, np.array(lines, dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
