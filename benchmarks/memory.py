"""Peak memory of fitting a stack far larger than memory should have to hold.

    python -m benchmarks.memory

A sparse MRC stack of 20 GB is made (a few hundred megabytes on disk), `modpose fit` runs on it in
a process of its own, and the peak of its resident memory is printed, with the time of each part.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np

from modpose.config import set_option
from modpose.data.stack import Stack
from modpose.run import Run

BOX = 256
PIXEL_SIZE = 1.5
LIMIT_BYTES = 2e9
GIGABYTE = 10**9


def write_sparse_stack(path: Path, n: int, seed: int = 0) -> None:
    """Write ``n`` images of 256x256 float32, one row of noise in each, the rest holes."""
    rng = np.random.default_rng(seed)
    with mrcfile.new(path) as header_only:
        header_only.set_data(np.zeros((1, BOX, BOX), np.float32))
        header_only.set_image_stack()
        header_only.voxel_size = PIXEL_SIZE
        header_only.header.nz = n
    row = 4 * BOX
    image = row * BOX
    with path.open("r+b") as file:
        file.truncate(1024 + n * image)
        for k in range(n):
            file.seek(1024 + k * image + (BOX // 2) * row)
            file.write(rng.standard_normal(BOX, dtype=np.float32).tobytes())
