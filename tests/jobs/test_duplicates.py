"""Duplicates: of close particles, one is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modpose.data.particles import Particles
from modpose.errors import InputError
from modpose.jobs.duplicates import without_duplicates
from modpose.jobs.positions import centres, open_table, recentred
from modpose.jobs.symmetry import expanded
from tests.jobs.table_files import (
    MICROGRAPH_PIXEL,
    N,
    cs,
    star,
)


@pytest.mark.parametrize("kind", ["star", "cs"])
def test_of_close_particles_the_better_one_is_kept(tmp_path: Path, kind: str) -> None:
    particles = open_table(star(tmp_path) if kind == "star" else cs(tmp_path))
    by = "rlnMaxValueProbDistribution" if kind == "star" else "-ctf/df1_A"
    keep = without_duplicates(particles, 60.0, by=by)
    sign = -1 if by.startswith("-") else 1
    good = sign * particles.numbers(by.removeprefix("-"))
    group = np.arange(N) % 3
    place = centres(particles)
    near = (np.linalg.norm(place[:, None] - place, axis=2) < 60) & (group[:, None] == group)
    expected = np.ones(N, bool)
    for k in np.argsort(-good, kind="stable"):
        if expected[k]:
            expected[near[k] & (np.arange(N) != k)] = False
    assert 0 < (~keep).sum() < N
    np.testing.assert_array_equal(keep, expected)


def test_places_by_hand_with_shifts_in_pixels(tmp_path: Path) -> None:
    columns = {"rlnMicrographName": "m.mrc", "rlnCoordinateX": [100.0, 300.0]}
    columns |= {"rlnCoordinateY": 50.0, "rlnOriginX": [5.1, -2.0], "rlnOriginY": [0.0, 1.0]}
    old = pd.DataFrame({"rlnImageName": ["1@s.mrcs", "2@s.mrcs"]}).assign(**columns)
    plain = Particles(old.assign(rlnMicrographPixelSize=2.0), None, "star", "old.star")
    with pytest.raises(InputError, match=r"old\.star: rlnOriginX is there but no pixel size"):
        centres(plain)
    sized = replace(plain, table=plain.table.assign(rlnImagePixelSize=4.0))
    np.testing.assert_allclose(centres(sized), [[179.6, 100.0], [608.0, 96.0]])
    again = recentred(sized).table
    assert again["rlnCoordinateX"].tolist() == [90.0, 304.0]
    # what is left, -0.4 Å, is in pixels of the table, which are those of RELION's next extraction
    np.testing.assert_allclose(again["rlnOriginX"], [0.1, 0.0], atol=1e-9)
    np.testing.assert_allclose(again["rlnOriginY"], [0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(centres(replace(sized, table=again)), centres(sized), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dims", "size"),
    [("TS_01", 3, 2.0), ("TS_01", 2, 10.0), ("TS_01.tomostar", 3, 10.0)],
)
def test_coordinates_of_warptools_are_in_pixels_of_the_images(
    name: str, dims: int, size: float
) -> None:
    places = {f"rlnCoordinate{axis}": [float(k)] for k, axis in enumerate("XYZ", 3)}
    table = pd.DataFrame({"rlnTomoName": [name], "rlnImageName": ["s.mrcs"], **places})
    sizes = {"rlnTomoTiltSeriesPixelSize": 2.0, "rlnImagePixelSize": 10.0}
    table = table.assign(rlnImageDimensionality=dims, **sizes)
    found = centres(Particles(table, None, "star", "t.star"))
    np.testing.assert_allclose(found, [[3 * size, 4 * size, 5 * size]])


def test_places_of_a_cs_by_hand(tmp_path: Path) -> None:
    particles = open_table(cs(tmp_path))
    table = particles.table
    place = np.stack([table["location/center_x_frac"] * 400, table["location/center_y_frac"] * 500])
    shift = np.stack([table["alignments3D/shift_0"], table["alignments3D/shift_1"]])
    np.testing.assert_allclose(centres(particles), (place - 1.31 * shift).T, rtol=1e-6)
    kept = [name for name in table if not str(name).startswith("alignments3D/")]
    np.testing.assert_allclose(centres(replace(particles, table=table[kept])), place.T, rtol=1e-6)


def test_shifts_count_and_copies_stay_together(tmp_path: Path) -> None:
    places = {"rlnCoordinateX": [100.0, 100.0, 300.0], "rlnCoordinateY": 100.0}
    origins = {"rlnOriginXAngst": [30.0, -30.0, 0.0], "rlnOriginYAngst": 0.0}
    path = star(tmp_path, 3, rlnMicrographName="m.mrc", **places, **origins)
    particles = open_table(path)
    np.testing.assert_allclose(centres(particles)[:, 0], [70, 130, 300])
    assert without_duplicates(particles, 50).all()
    assert without_duplicates(particles, 61).sum() == 2
    many = expanded(particles, "C3")
    assert without_duplicates(many, 50).all()
    keep = without_duplicates(many, 61).reshape(3, 3)
    np.testing.assert_array_equal(keep.any(1), keep.all(1))
    assert keep.all(1).sum() == 2


def test_tomograms_are_compared_in_space(tmp_path: Path) -> None:
    centred = {f"rlnCenteredCoordinate{a}Angst": [0.0, 0.0, 0.0] for a in "XY"}
    z = {"rlnCenteredCoordinateZAngst": [0.0, 40.0, 100.0], "rlnOriginZAngst": [0.0, 5.0, 0.0]}
    path = star(tmp_path, 3, rlnTomoName="TS_01", **centred, **z)
    particles = open_table(path)
    particles.table[["rlnOriginXAngst", "rlnOriginYAngst"]] = 0.0
    assert without_duplicates(particles, 34).all()
    assert without_duplicates(particles, 36).sum() == 2
    moved = recentred(particles).table
    np.testing.assert_allclose(moved["rlnCenteredCoordinateZAngst"], [0, 35, 100])
    assert (moved["rlnOriginZAngst"] == 0).all()
    pixels = {f"rlnCoordinate{axis}": 50.0 for axis in "XYZ"}
    twice = replace(particles, table=particles.table.assign(**pixels))
    again = recentred(twice).table  # old coordinates in pixels would contradict
    assert again["rlnCenteredCoordinateZAngst"].tolist() == [0, 35, 100]
    assert not any(name in again for name in pixels)


def test_what_cannot_be_placed_is_refused(tmp_path: Path) -> None:
    particles = open_table(star(tmp_path))

    def without(*names: str) -> Particles:
        optics = particles.optics
        assert optics is not None
        return Particles(
            particles.table.drop(columns=[n for n in names if n in particles.table]),
            optics.drop(columns=[n for n in names if n in optics]),
            "star",
            "p.star",
        )

    with pytest.raises(InputError, match="no coordinates, expected rlnCoordinateX"):
        centres(without("rlnCoordinateX"))
    with pytest.raises(InputError, match="expected --micrograph-pixel-size"):
        centres(without("rlnMicrographPixelSize"))
    given = centres(without("rlnMicrographPixelSize"), MICROGRAPH_PIXEL)
    np.testing.assert_array_equal(given, centres(particles))
    with pytest.raises(InputError, match="no rlnMicrographName, rlnTomoName"):
        without_duplicates(without("rlnMicrographName"), 10)
    with pytest.raises(InputError, match="--distance is -1, expected a positive number"):
        without_duplicates(particles, -1)
    with pytest.raises(InputError, match="no column 'nothing'"):
        without_duplicates(particles, 10, by="nothing")
