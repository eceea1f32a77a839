"""The exceptions that users see."""

from __future__ import annotations

import reprlib
from pathlib import Path

SHOWN = 60
"""Largest number of characters of a user's value in a message."""
LONGEST = 600
"""Largest number of characters of a message; only very long file names come near."""


class InputError(ValueError):
    """Input of the user that cannot be used.

    The message is one sentence: the file (or option), the field, what was found and what was
    expected.  The command line prints it and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shorter(printable(message), LONGEST))

    @classmethod
    def of(cls, where: str | Path, field: str, found: object, expected: str) -> InputError:
        """Build the sentence ``where: field is found, expected expected``."""
        text = shown(found) if isinstance(found, _UNBOUNDED) else str(found)
        return cls(f"{where}: {field} is {shorter(text, 2 * SHOWN)}, expected {expected}")


class TrainingError(RuntimeError):
    """Training cannot continue, for example because of an infinite loss."""


def shown(value: object) -> str:
    """Format a value for a message: one line of printable text, shortened if long.

    Text gets quotation marks.  The time does not depend on the size of the value.
    """
    if isinstance(value, str):
        return f"'{shorter(printable(value[: 2 * SHOWN]), SHOWN)}'"
    text = _Bounded().repr(value) if isinstance(value, _UNBOUNDED) else str(value)
    return shorter(printable(text), SHOWN)


_UNBOUNDED = (int, bytes, bytearray, list, tuple, dict, set, frozenset)
"""Types whose values may take very long to write."""


class _Bounded(reprlib.Repr):
    """``repr`` of the first entries of the first levels."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 2, SHOWN, SHOWN, SHOWN

    def repr_int(self, value: int, level: int) -> str:
        """Write a whole number, unless it has very many digits."""
        return repr(value) if abs(value) < 10**SHOWN else "a number of very many digits"


def printable(text: str) -> str:
    """Replace every control character by a space, and every broken letter by ``?``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def shorter(text: str, length: int) -> str:
    """Leave out the middle of a text that is longer than ``length``."""
    if len(text) <= length:
        return text
    return f"{text[: length * 2 // 3]} ... {text[len(text) - length // 4 :]}"
