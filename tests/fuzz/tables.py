"""Formats of text that hold tables: STAR, CSV, labels, row numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from modpose.data.inspect import describe
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.data.star import read_star
from tests.fuzz.judge import Format, Seed

OPTICS = b"""
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnImageSize #7
_rlnImageDimensionality #8
1 opticsGroup1 2.500000 300.000000 2.700000 0.100000 8 2

"""
PARTICLES = b"""
# version 30001

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnAngleRot #6
_rlnAngleTilt #7
_rlnAnglePsi #8
_rlnOriginXAngst #9
_rlnOriginYAngst #10
_rlnOpticsGroup #11
_rlnRandomSubset #12
000001@x.mrcs mic/a.mrc 10000.5 9000.25 12.5 1.5 -2.25 3 0.5 -1.5 1 1
000002@x.mrcs mic/b.mrc 12000.5 9500 -12.5 100.5 90 -3e1 0.125 -1.5 1 2
000003@x.mrcs "mic/c d.mrc" 11000 9100 0 -60.5 170.0 0.1 0.75 0 1 2
"""
OLD = b"""
data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnMagnification #8
_rlnDetectorPixelSize #9
_rlnAnglePsi #10
1@x.mrcs  300.0 10000 9000 10 2.7 0.1 10000 2.5 12.5
2@x.mrcs  300.0 11000 9000 20 2.7 0.1 10000 2.5 -0.5 # why
"""
GENERAL = b"\ndata_general\n\n_rlnTomoSubTomosAre2DStacks 0\n_rlnTomoName 'one two'\n"
STAR_TOKENS = (
    *(b"data_", b"data_optics", b"data_particles", b"loop_", b"_rlnImageName", b"_rlnAngleRot"),
    *(b"_rlnDefocusU", b"_rlnOpticsGroup", b"_rlnOriginXAngst", b"_rlnImagePixelSize", b"_"),
    *(b"_rlnVoltage", b" #3", b"@", b"x.mrcs", b"000001@", b"\n\n", b"\n", b"\t", b" ", b"300.000"),
    *(b"None", b"NaN", b"<NA>", b"True", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xc2\xa0", b"1e400"),
)


def stack_beside(folder: Path) -> None:
    """Write the images that the tables name."""
    write_mrcs(folder / "x.mrcs", np.ones((3, 8, 8), np.float32), 2.5)


def plain(value: Any) -> Any:
    """Write a value so that readers of other precision, and of other types, agree."""
    if isinstance(value, str):
        found = _number(value)
        return value if found is None else plain(found)
    if value is None or value != value:
        return "missing"
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    return f"{float(value):.12g}"


def _number(text: str) -> float | None:
    if text in ("nan", "NaN", "<NA>"):
        return float("nan")
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def columns(table: Any) -> dict[str, list[Any]]:
    """Turn a table into lists."""
    if isinstance(table, dict):
        return {str(name): [plain(value)] for name, value in table.items()}
    return {str(name): [plain(v) for v in table[name].tolist()] for name in table.columns}


def _ours_star(path: Path) -> Any:
    return {name: columns(block) for name, block in read_star(path).items()}


def _theirs_star(path: Path) -> Any:
    """Read a STAR file word by word, as its definition has it."""
    blocks: dict[str, dict[str, list[Any]]] = {}
    block: dict[str, list[Any]] = {}
    loop = False
    for line in path.read_bytes().decode("utf-8-sig").splitlines():
        words = list(_words(line))
        if not words:
            continue
        if words[0].startswith("data_") and not (loop and len(block) > 1 and len(words) > 1):
            block, loop = blocks.setdefault(line.strip()[5:], {}), False
        elif words[0] == "loop_":
            loop = True
        elif line.strip().startswith("_"):
            block[words[0][1:]] = [] if loop else [plain(words[1])]
        else:
            for column, word in zip(block.values(), words, strict=True):
                column.append(plain(word))
    return {name: block for name, block in blocks.items() if block}


def _words(line: str) -> Iterable[str]:
    for double, single, bare in re.findall(r'"([^"]*)"|\'([^\']*)\'|([^ \t]+)', line):
        if bare.startswith("#"):
            return
        yield bare or double or single


def _particles(path: Path) -> None:
    assert str(describe(path))
    source = open_source(path)
    source.stack.read(np.arange(source.n))
    source.particles.poses(source.pixel_size)
    source.particles.ctf(source.pixel_size)
    source.particles.truth()


def formats() -> list[Format]:
    """Return the formats of tables."""
    stars = [Seed(OPTICS + PARTICLES), Seed(OLD), Seed(GENERAL + OPTICS + PARTICLES)]
    return [
        Format("star", "x.star", stars, _ours_star, _theirs_star, STAR_TOKENS),
        Format(
            *("star-particles", "x.star", stars, _particles, None, STAR_TOKENS, stack_beside),
        ),
    ]
