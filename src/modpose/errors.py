"""The one exception that a user sees: a sentence about their input."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one sentence that names the file (or option), the field, what was found and
    what was expected.  The command line prints it and leaves with exit code 2.
    """

    @classmethod
    def of(cls, where: str | Path, field: str, found: object, expected: str) -> InputError:
        """Build the sentence ``where: field is found, expected expected``."""
        return cls(f"{where}: {field} is {found}, expected {expected}")


class TrainingError(RuntimeError):
    """Training cannot go on (a loss that is not finite, say); names the last good checkpoint."""
