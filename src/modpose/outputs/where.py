"""Expressions over the columns of a table: ``--where``.

Only comparisons, ``and``/``or``/``not``, ``between``, ``in``, ``abs()``, numbers, quoted text and
names of columns are evaluated.
"""

from __future__ import annotations

import ast
import io
import operator
import re
import tokenize
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import no_column
from modpose.errors import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def evaluate_where(expression: str, table: pd.DataFrame) -> Mask:
    """Mark the rows of ``table`` for which ``expression`` holds.

    Parameters
    ----------
    expression
        Comparisons of column names with numbers, quoted text or other columns, joined with
        ``and``, ``or`` and ``not``; chains (``0 < z_0 < 1``), lists (``cluster in (1, 3)``),
        ``abs(z_0)`` and ``z_0 between 0 and 1`` (both ends included).  Put a name that is not a
        word in backticks.
    table
        One row per image.

    Returns
    -------
    (N,) bool; a comparison with a missing value is false, except ``!=``.

    Raises
    ------
    InputError
        The expression is not of that form, names a column that does not exist, or compares a
        number with a text.
    """
    return Where(expression).mask(table)


class Where:
    """An expression, read and not yet evaluated.

    Parameters
    ----------
    expression
        See :func:`evaluate_where`.

    Raises
    ------
    InputError
        It cannot be read.
    """

    def __init__(self, expression: str) -> None:
        self.where = f"--where {shown(expression)}"
        if len(expression) > LONGEST:
            found = f"{len(expression):,} characters long"
            raise InputError.of(self.where, "the expression", found, f"at most {LONGEST:,}")
        try:
            text, self._quoted = _without_backticks(expression.strip())
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Python's remarks on odd syntax are refusals here
                self._tree = ast.parse(_without_between(text), mode="eval").body
        except (*_UNREADABLE, MemoryError):
            raise InputError.of(self.where, "the expression", "not readable", _FORM) from None

    def names(self) -> set[str]:
        """Names in the expression that may be columns."""
        found = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name):
                found.add(self._quoted.get(node.id, node.id))
            elif (name := _slashed(node)) is not None:
                found.add(name)
        return found

    def mask(self, table: pd.DataFrame) -> Mask:
        """Mark the rows, (N,), of a table for which it holds."""
        try:
            return _Evaluation(table, self.where, self._quoted).condition(self._tree)
        except RecursionError:
            raise InputError.of(self.where, "the expression", "not readable", _FORM) from None


_UNREADABLE = (SyntaxError, tokenize.TokenError, Warning, ValueError, RecursionError)
_FORM = "comparisons such as 'elbo > -700 and z_0 < 1'"
LONGEST = 10_000
"""Characters of an expression."""

Value = float | str | NDArray[Any]
"""A number or a text; numbers (N,), or texts (N,) as objects, NaN or None if missing."""


class _Evaluation:
    """Evaluates the syntax tree of an expression over the rows of a table."""

    def __init__(self, table: pd.DataFrame, where: str, quoted: dict[str, str]) -> None:
        self.table, self.where, self.quoted = table, where, quoted

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
            case ast.Call(func=ast.Attribute(value=value, attr="between"), args=[low, high]):
                return self._between(value, low, high)
        raise InputError.of(self.where, "a part of it", _written(node), _FORM)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Mask:
        """Evaluate one comparison, row by row."""
        if isinstance(op, ast.In | ast.NotIn):
            match right:
                case ast.Call(func=ast.Name(id="between"), args=[low, high]):
                    inside = self._between(left, low, high)
                    return inside ^ isinstance(op, ast.NotIn)
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

    def _between(self, value: ast.expr, low: ast.expr, high: ast.expr) -> Mask:
        return self._comparison(low, ast.LtE(), value) & self._comparison(value, ast.LtE(), high)

    def _value(self, node: ast.expr) -> Value:
        """Evaluate a node that must be a number, a text or a column."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return constant if isinstance(constant, str) else self._number(constant)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
                value = self._value(part)
                if not _is_text(value):
                    return -value if isinstance(sign, ast.USub) else value  # type: ignore[operator]
            case ast.Call(func=ast.Name(id="abs"), args=[part], keywords=[]):
                value = self._value(part)
                if not _is_text(value):
                    size: Value = np.abs(np.asarray(value))
                    return size
            case ast.Name(id=name):
                return self._column(self.quoted.get(name, name))
            case ast.BinOp() if (slashed := _slashed(node)) is not None:
                return self._column(slashed)
        expected = "a number, a quoted text or the name of a column"
        raise InputError.of(self.where, "a part of it", _written(node), expected)

    def _number(self, value: float) -> float:
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            found = "a whole number of very many digits"
            raise InputError.of(self.where, "a part of it", found, "one of at most 64 bits")
        return value

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self.table:
            raise InputError(f"{self.where}: {no_column(name, self.table.columns)}")
        values = self.table[name].to_numpy()
        if values.dtype.kind in "biuf":
            return values.astype(np.float64) if values.dtype.kind == "b" else values
        values = values.astype(object)
        texts = np.fromiter((isinstance(v, str) for v in values), bool, len(values))
        if not (texts | _missing(values)).all():
            expected = "a column of numbers or of text"
            raise InputError.of(self.where, f"the column {shown(name)}", "mixed", expected)
        return values


def _slashed(node: ast.AST) -> str | None:
    """Return ``group/name``, as cryoSPARC names columns, of what looks like a division of words."""
    match node:
        case ast.BinOp(op=ast.Div(), left=ast.Name(id=group), right=ast.Name(id=name)):
            return f"{group}/{name}"
    return None


def _without_backticks(text: str) -> tuple[str, dict[str, str]]:
    """Replace each name in backticks by a word; also return the meaning of the words."""
    quoted: dict[str, str] = {}

    def word(match: re.Match[str]) -> str:
        if match[1] is None:  # a text in quotation marks
            return match[0]
        key = f"_in_backticks_{len(quoted)}"
        quoted[key] = match[1]
        return f" {key} "

    return re.sub(r"'[^']*'|\"[^\"]*\"|`([^`]+)`", word, text).strip(), quoted


def _without_between(text: str) -> str:
    """Write ``x between a and b`` as ``x in between(a, b)``, which Python can read."""
    if "between" not in text:
        return text
    words: list[str] = []
    depth, before = 0, ""
    waiting: list[tuple[int, bool]] = []  # depth of a between, and whether its "and" has come
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        word = token.string
        if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
            continue
        while waiting and waiting[-1][1] and _ends_operand(word, depth, waiting[-1][0]):
            words.append(")")
            waiting.pop()
        depth += (word in "([{") - (word in ")]}")
        if word == "between" and before != ".":
            waiting.append((depth, False))
            words.append("in between (")
        elif word == "and" and waiting and waiting[-1] == (depth, False):
            waiting[-1] = (depth, True)
            words.append(",")
        else:
            words.append(word)
        before = word
    return " ".join(words) + ")" * len(waiting)


def _ends_operand(word: str, depth: int, start: int) -> bool:
    return depth == start and word in ("and", "or", ")", "]", ",")


def _is_text(value: Value) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind == "O")


def _missing(value: Value) -> Mask:
    import pandas as pd

    return np.asarray(pd.isna(value), dtype=bool)


def _written(node: ast.expr) -> str:
    return shown(ast.unparse(node))
