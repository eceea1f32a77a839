"""Formats of instruments and other programs: EM, SPIDER, tensors, 4-bit MRC, FITS."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.fuzz.binary import CUBES, REAL, arranged, read_all
from tests.fuzz.judge import Format, Seed


def em_file(array: NDArray[np.float32]) -> bytes:
    head = bytes([6, 0, 0, 5]) + struct.pack("<3i", *array.shape[::-1])
    return head.ljust(512, b"\0") + array.astype("<f4").tobytes()


def spider_file(array: NDArray[np.float32]) -> bytes:
    rows, columns = array.shape
    records = -(-1024 // (columns * 4))
    words = np.zeros(records * columns, ">f4")
    places = (1, 2, 5, 12, 13, 22, 23)
    values = (1, rows, 1, columns, records, 4 * records * columns, 4 * columns)
    words[np.array(places) - 1] = values
    return words.tobytes() + array.astype(">f4").tobytes()


def _tensor(content: Any) -> Seed:
    file = io.BytesIO()
    torch.save(content, file)
    return Seed(file.getvalue())


def _fits(array: NDArray[Any]) -> Seed:
    fits = importlib.import_module("astropy.io.fits")
    file = io.BytesIO()
    fits.PrimaryHDU(array).writeto(file)
    return Seed(file.getvalue())


def _load_spider(path: Path) -> NDArray[np.float32]:
    from PIL import Image

    try:
        with Image.open(path, formats=("SPIDER",)) as image:
            return arranged(np.asarray(image))
    except AttributeError:  # word 27 is a number in a stack, where Pillow fails without one
        raw = path.read_bytes()
        rows, columns, header = (int(struct.unpack_from(">f", raw, 4 * i)[0]) for i in (1, 11, 21))
        return arranged(np.frombuffer(raw, ">f4", offset=header).reshape(rows, columns))


def formats() -> list[Format]:
    """Return these formats; FITS where astropy is installed."""
    found = [
        Format("em", "x.em", [Seed(em_file(REAL)), Seed(em_file(CUBES[0]))], read_all, None),
        Format("spider", "x.spi", [Seed(spider_file(REAL[0]))], read_all, _load_spider),
        Format("tensor", "x.pt", [_tensor(torch.from_numpy(REAL))], read_all, None),
    ]
    if importlib.util.find_spec("astropy") is not None:
        found.append(Format("fits", "x.fits", [_fits(REAL)], read_all, None))
    return found
