"""Expressions of ``--where`` and assignments of ``--set``, drawn at random from their grammar."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import yaml

from modpose.errors import InputError
from modpose.options import resolve
from modpose.outputs.select import evaluate_where
from modpose.recipes import recipe_config
from tests.fuzz.judge import LIBRARY_WORDS

TABLE = pd.DataFrame(
    {
        "z_0": [0.0, 1.5, -2.0, np.nan, 3.0],
        "cluster": [1, 2, 3, 1, 2],
        "uid": np.array([2**63, 2**63 + 1, 1, 2, 3], np.uint64),
        "file": ["a.png", "b.png", None, "", "1"],
        "bad": pd.Series([1, "a", None, 2.5, True], dtype=object),
        "ctf/df1_A": [1e4, 2e4, 3e4, 4e4, np.inf],
    }
)
ATOMS = (
    *("z_0", "cluster", "uid", "file", "bad", "ctf/df1_A", "nothing", "1", "-2", "0.5", "1e400"),
    *("9" * 400, "-9223372036854775808", "18446744073709551615", "'a.png'", '"é"', "''", "True"),
    *("None", "rb'x'", "f'{z_0}'", "1j", "...", "(1, 2)", "[1, 'a']", "()", "z_0.real", "z_0[0]"),
    *("open('x')", "__import__('os')", "lambda: 1", "(x := 1)", "[i for i in z_0]", "-file", "+-1"),
    *("'" + "x" * 5000 + "'", "x" * 5000, "\\", "\x00", "µ", "z_0 if 1 else 2", "*z_0"),
    *("abs(z_0)", "abs(file)", "`ctf/df1_A`", "`", "between(1, 2)", "1 and 2", "z_0.between(1, 2)"),
)
COMPARISONS = (
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "!=",
    "in",
    "not in",
    "is",
    "=",
    "<>",
    "&",
    "+",
    "**",
    "between",
)


def expression(random: np.random.Generator, depth: int = 0) -> str:
    """Draw an expression that may be right, wrong or nonsense."""
    kind = int(random.integers(8 if depth < 4 else 4))
    atom = str(random.choice(ATOMS))
    if kind < 4:
        words = [atom]
        for _ in range(int(random.choice([0, 1, 1, 1, 1, 2, 3]))):
            words += [str(random.choice(COMPARISONS)), str(random.choice(ATOMS))]
        return " ".join(words)
    if kind < 6:
        joint = str(random.choice(["and", "or", "xor", ""]))
        return f"{expression(random, depth + 1)} {joint} {expression(random, depth + 1)}"
    before = str(random.choice(["not ", "(", "-", "~", "not not "]))
    return (
        before + expression(random, depth + 1) + ")" * int(before == "(" and random.integers(9) > 0)
    )


def check_sentence(error: InputError) -> None:
    text = str(error)
    assert len(text) <= 360
    assert text.isprintable()
    assert not any(word in text for word in LIBRARY_WORDS)


@pytest.mark.parametrize("seed", range(4))
def test_expressions_are_evaluated_or_refused_in_a_sentence(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(250):
        try:
            mask = evaluate_where(expression(random), TABLE)
        except InputError as error:
            check_sentence(error)
        else:
            assert mask.shape == (5,)
            assert mask.dtype == bool


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z_0 < 1", [1, 0, 1, 0, 0]),
        ("not z_0 < 1", [0, 1, 0, 1, 1]),
        ("z_0 != 1.5", [1, 0, 1, 1, 1]),
        ("-1 < z_0 <= 1.5 or cluster == 3", [1, 1, 1, 0, 0]),
        ("cluster in (1, 3)", [1, 0, 1, 1, 0]),
        ("cluster not in [1]", [0, 1, 1, 0, 1]),
        ("uid == 9223372036854775809", [0, 1, 0, 0, 0]),
        ("file == 'a.png' or file != 'b.png'", [1, 0, 1, 1, 1]),
        ("file < 'b'", [1, 0, 0, 1, 1]),
        ("ctf/df1_A > 15000", [0, 1, 1, 1, 1]),
        ("-z_0 > 1 and not cluster == 1", [0, 0, 1, 0, 0]),
        ("1 < 2", [1, 1, 1, 1, 1]),
        ("cluster in ()", [0, 0, 0, 0, 0]),
    ],
)
def test_expressions_mean_what_python_means(text: str, expected: list[int]) -> None:
    assert evaluate_where(text, TABLE).tolist() == [bool(v) for v in expected]


@pytest.mark.parametrize(
    "text",
    [
        *("(" * 5000 + "1" + ")" * 5000, "not " * 5000 + "z_0 < 1", "-" * 9000 + "1 < z_0"),
        *("z_0 < 1 and " * 100_000 + "z_0 < 1", "9" * 9000 + " < z_0"),
        *("file == 1", "z_0 == 'a'", "bad == 1", "z_0", "", "z_0 <", "cluster == True == 'a'"),
        *("(" * 90 + "1" + ")" * 90, "a" * 9000 + " < 1", "cluster in cluster", "[" * 150),
    ],
)
def test_endless_and_odd_expressions_are_refused_at_once(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError) as refused:
        evaluate_where(text, TABLE)
    check_sentence(refused.value)
    assert time.monotonic() - start < 5


def test_a_million_rows_are_evaluated_fast() -> None:
    n = 10**6
    table = pd.DataFrame({"z": np.arange(n, dtype=float), "file": np.tile(["a", "b"], n // 2)})
    start = time.process_time()
    mask = evaluate_where(
        "(z > 10 and z < 1e5 or z == 5) and file == 'a' and not z in (12, 14)", table
    )
    assert time.process_time() - start < 5
    z = np.arange(n)
    right = ((z > 10) & (z < 1e5) | (z == 5)) & (z % 2 == 0) & (z != 12) & (z != 14)
    np.testing.assert_array_equal(mask, right)


VALUES = (
    *("1", "-1", "0", "1e30", ".nan", ".inf", "true", "off", "null", "", "[]", "{}", "[1, 2]", "x"),
    *("9" * 400, "9" * 5000, "1.5", "&a [*a]", "!!python/none", "{kind: conv}", "'1'", "1e-400"),
    *("[" * 500, "{a: " * 500, "\x01", "é", "a: b: c", "- 1", "x" * 5000, "010", "1_000", "0x10"),
)


@pytest.mark.parametrize("seed", range(2))
def test_assignments_are_taken_or_refused_in_a_sentence(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = list(_names(yaml.safe_load(_dumped())))
    for _ in range(200):
        name = str(random.choice(names)) if random.integers(5) else str(random.choice(VALUES))
        text = f"{name}{random.choice(['=', '=', '=', '', '==', '.x='])}{random.choice(VALUES)}"
        try:
            resolve(recipe_config("modpose"), assignments=[text])
        except InputError as error:
            check_sentence(error)


def _dumped() -> str:
    from modpose.config import dump_config

    return dump_config(resolve(recipe_config("modpose")))


def _names(values: object, prefix: str = "") -> list[str]:
    if not isinstance(values, dict):
        return [prefix]
    parts = [_names(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in values.items()]
    return [prefix, *(name for part in parts for name in part)]
