"""Keep freed memory for the next step, or hand it back to the system.

Every step allocates the same large activations.  By default the C library returns such blocks to
the system and requests them again, and the kernel clears every page each time.  This takes a third
of the time of a step (``benchmarks/step.py --default-allocator``).
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1
_PAD = 1 << 26


def keep_freed_memory(largest: int = _LARGEST) -> bool:
    """Tell glibc to reuse large blocks; elsewhere do nothing and return False.

    Parameters
    ----------
    largest
        Bytes of the largest block that is kept.  Blocks of many sizes leave holes that no other
        fills.  Those of 100 MB and more are better handed back: clearing them costs little beside
        the work on them.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_M_MMAP_THRESHOLD: largest, _M_TRIM_THRESHOLD: _LARGEST, _M_TOP_PAD: _PAD}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def return_freed_memory() -> bool:
    """Hand all freed memory back to the system, before work of another size.

    Where there is no glibc do nothing and return False.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True
