"""Text that people copy."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from modpose.files.text import in_shell


@pytest.mark.parametrize("name", ["run", "my run", "ünder/it's", "-run", "a;b"])
def test_a_path_that_is_copied_to_a_shell_is_the_same_path(name: str) -> None:
    (word,) = shlex.split(in_shell(Path(name)))
    assert Path(word) == Path(name)
    assert not word.startswith("-")
