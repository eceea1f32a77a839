"""Freed memory: kept for the next step, handed back before work of another size."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from modpose.memory import keep_freed_memory, return_freed_memory

STATE = Path("/proc/self/statm")
PAGES, BLOCK, COUNT = 4096, 1 << 22, 50


def in_memory() -> int:
    """Return the resident memory of this process, bytes."""
    return int(STATE.read_text(encoding="ascii").split()[1]) * PAGES


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not STATE.is_file(),
    reason="needs glibc and /proc",
)
def test_kept_memory_is_handed_back_even_below_blocks_in_use():
    assert keep_freed_memory()
    blocks = [np.ones(BLOCK, np.uint8) for _ in range(COUNT)]
    last = np.ones(BLOCK, np.uint8)
    blocks.clear()
    before = in_memory()
    assert return_freed_memory()
    # half, because other blocks may have been kept before
    assert before - in_memory() > COUNT * BLOCK / 2
    assert last.all()
