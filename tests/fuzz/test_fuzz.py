"""Damaged files are answered by a sentence, or read as another program reads them.

A few hundred here; ``make fuzz N=10000 SEED=7`` tries more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.formats import every
from tests.fuzz.judge import Format, judge, run

FORMATS = every()
CASES = 40
"""Damaged files of each format."""
UNMENDED: set[str] = set()


@pytest.mark.parametrize("form", FORMATS, ids=[form.name for form in FORMATS])
def test_a_good_file_is_read_as_another_program_reads_it(form: Format, tmp_path: Path) -> None:
    form.prepare(tmp_path)
    for seed in form.seeds:
        path = tmp_path / form.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(seed.wrap(seed.data))
        form.ours(path)
        assert judge(form, path) is None


MENDED = [form for form in FORMATS if form.name not in UNMENDED]


@pytest.mark.parametrize("form", MENDED, ids=[form.name for form in MENDED])
def test_a_damaged_file_is_answered_by_a_sentence_or_read_rightly(
    form: Format, tmp_path: Path
) -> None:
    assert run(form, tmp_path, CASES, seed=1) == []
