"""Files of an FSC: a table, and the formats of EMDB and RELION."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from modpose.data.star import write_star
from modpose.data.table_form import TableForm
from modpose.errors import InputError
from modpose.files.writing import replace_atomically
from modpose.fourier.fsc import FscCurve
from modpose.jobs.resolution import Resolution


def check_curve_file(out: Path) -> None:
    """Raise InputError where the extension is none that :func:`write_resolution` knows."""
    if out.suffix.lower() not in WRITERS:
        raise InputError.of(out, "the extension", f"'{out.suffix}'", ".csv, .xml or .star")


def write_resolution(found: Resolution, out: Path, overwrite: bool = False) -> None:
    """Write curves: ``.csv`` (one row per shell), ``.xml`` (EMDB) or ``.star`` (RELION).

    Raises
    ------
    InputError
        The extension is another one, the pixel size is not known and the format needs it, or the
        file is there and ``overwrite`` is false.
    """
    check_curve_file(out)
    WRITERS[out.suffix.lower()](found, out, overwrite)


def _write_csv(found: Resolution, out: Path, overwrite: bool) -> None:
    columns = found.curve.columns()
    if found.masked is not None:
        columns["fsc_unmasked"] = found.unmasked.correlation
    if found.masked is not None and found.randomised is not None:
        columns["fsc_masked"] = found.masked.correlation
        columns["fsc_randomised"] = found.randomised.correlation
    if found.cones is not None:
        for name, part in (("lowest", 0), ("median", 50), ("highest", 100)):
            columns[f"fsc_cone_{name}"] = np.nanpercentile(found.cones.correlation, part, axis=0)
    text = pd.DataFrame(columns).to_csv(index=False).encode()
    replace_atomically(out, lambda file: file.write(text), overwrite)


def _write_xml(found: Resolution, out: Path, overwrite: bool) -> None:
    size = _size(found.curve, out)
    points = zip(found.curve.frequency / size, found.curve.correlation, strict=True)
    text = "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<fsc title="Fourier shell correlation" xaxis="Resolution (A-1)" '
            'yaxis="Correlation Coefficient">',
            *(
                f"  <coordinate>\n    <x>{x:.6f}</x>\n    <y>{y:.6f}</y>\n  </coordinate>"
                for x, y in points
            ),
            "</fsc>\n",
        ]
    )
    replace_atomically(out, lambda file: file.write(text.encode()), overwrite)


def _write_star(found: Resolution, out: Path, overwrite: bool) -> None:
    size, curve = _size(found.curve, out), found.curve
    shell = np.arange(len(curve.correlation) + 1)

    def whole(part: FscCurve) -> np.ndarray:
        return np.insert(part.correlation, 0, 1.0)

    frequency = shell / (curve.box * size)
    table = {
        "rlnSpectralIndex": shell,
        "rlnResolution": frequency,
        "rlnAngstromResolution": 1 / np.maximum(frequency, 1e-3),
        "rlnFourierShellCorrelationCorrected": whole(curve),
        "rlnFourierShellCorrelationUnmaskedMaps": whole(found.unmasked),
    }
    if found.masked is not None:
        table["rlnFourierShellCorrelationMaskedMaps"] = whole(found.masked)
    if found.randomised is not None:
        name = "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"
        table[name] = np.insert(found.randomised.correlation, 0, 1.0)
    write_star(out, pd.DataFrame(table), overwrite=overwrite, form=TableForm(block="fsc"))


def _size(curve: FscCurve, out: Path) -> float:
    if curve.pixel_size is None:
        expected = "maps whose header says it; .csv needs none"
        raise InputError.of(out, "the pixel size of the maps", "not known", expected)
    return curve.pixel_size


WRITERS: dict[str, Callable[[Resolution, Path, bool], None]] = {
    ".csv": _write_csv,
    ".xml": _write_xml,
    ".star": _write_star,
}
