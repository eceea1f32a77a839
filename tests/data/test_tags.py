"""Every column of a table is honoured, refused or harmless, or named once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modpose.data.agreement import check_agreement
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.source import open_source
from modpose.data.stack import ArrayStack
from modpose.data.star import read_star, write_star
from modpose.data.tables import particle_blocks
from modpose.data.tags import HARMLESS, HONOURED, REFUSED, note_unknown, page, status_of
from modpose.errors import InputError

# What particle tables of RELION 3.0 to 5, cryoSPARC, Warp and M held that came our way.
MET = """
rlnAmplitudeContrast rlnAnglePsi rlnAngleRot rlnAngleTilt rlnAutopickFigureOfMerit rlnBeamTiltX
rlnBeamTiltY rlnCenteredCoordinateXAngst rlnClassNumber rlnCoordinateX rlnCoordinateZ
rlnCtfBfactor rlnCtfDataAreCtfPremultiplied rlnCtfDataArePhaseFlipped rlnCtfFigureOfMerit
rlnCtfImage rlnCtfMaxResolution rlnCtfScalefactor rlnDefocusAngle rlnDefocusU rlnDefocusV
rlnDetectorPixelSize rlnEvenZernike rlnGroupName rlnGroupNumber rlnHelicalTrackLength
rlnHelicalTubeID rlnImageDimensionality rlnImageName rlnImageOriginalName rlnImagePixelSize
rlnImageSize rlnLogLikeliContribution rlnMagMat00 rlnMagMat11 rlnMagnification
rlnMaxValueProbDistribution rlnMicrographName rlnMicrographOriginalPixelSize rlnMtfFileName
rlnNormCorrection rlnNrOfSignificantSamples rlnOddZernike rlnOpticsGroup rlnOpticsGroupName
rlnOriginX rlnOriginXAngst rlnOriginZAngst rlnPhaseShift rlnPixelSize rlnRandomSubset
rlnSphericalAberration rlnSymmetryGroup rlnTomoName rlnTomoParticleId rlnTomoParticleName
rlnTomoSubtomogramBinning rlnTomoTiltSeriesPixelSize rlnTomoVisibleFrames rlnVoltage rlnIsFlip
rlnBeamTiltClass alignments3D/alpha alignments3D/class_posterior alignments3D/pose
alignments3D/psize_A alignments3D/shift alignments3D/split alignments2D/pose alignments2D/class
alignments3D_multi/class_posterior blob/idx blob/import_sig blob/path blob/psize_A blob/shape
blob/sign ctf/accel_kv ctf/amp_contrast ctf/anisomag ctf/bfactor ctf/cs_mm ctf/df1_A
ctf/df_angle_rad ctf/exp_group_id ctf/phase_shift_rad ctf/scale ctf/scale_const ctf/shift_A
ctf/tetra_A ctf/tilt_A ctf/trefoil_A ctf/type location/center_x_frac pick_stats/ncc_score uid
modposeTruthHinge modposeTiltMin
"""


def test_every_column_that_was_met_is_in_one_list():
    assert [name for name in MET.split() if status_of(name) == "unknown"] == []
    assert not (HONOURED.keys() & REFUSED.keys())
    assert not (HARMLESS & (HONOURED.keys() | REFUSED.keys()))
    assert status_of("ctf/tilt_A_1") == "refused"
    assert status_of("alignments3D/pose_2") == "honoured"
    assert status_of("rlnTwist") == status_of("myColumn") == "unknown"


@pytest.mark.shared
def test_every_column_of_the_shared_tables_is_known(shared_data):
    unknown = set()
    for path in [*shared_data.rglob("*.star"), *(shared_data.parent / "cases").rglob("*.star")]:
        try:
            blocks = read_star(path)
        except InputError:
            continue
        found = particle_blocks(blocks)
        for name in [*found, *(["optics"] if found and "optics" in blocks else [])]:
            columns = blocks[name]
            unknown |= {str(c) for c in columns if status_of(str(c)) == "unknown"}
    for path in [*shared_data.rglob("*.cs"), *(shared_data.parent / "cases").rglob("*.cs")]:
        fields = np.load(path, mmap_mode="r", max_header_size=1_000_000).dtype.names
        unknown |= {name for name in fields if status_of(name) == "unknown"}
    assert unknown <= {"dummyVariable", "level_0", "myColumn"}


def test_unknown_columns_are_named_once(caplog):
    table = pd.DataFrame({"rlnImageName": ["1@a.mrcs"], "rlnTwist": [1.0], "mine": [2]})
    particles = Particles(table, format="star", name="p.star")
    note_unknown(particles)
    note_unknown(particles)
    assert caplog.text.count("unknown columns, which are kept and ignored: rlnTwist, mine") == 1


def test_the_page_is_made_from_the_table():
    assert (Path(__file__).parents[2] / "docs" / "tags.md").read_text(encoding="utf-8") == page()


# --- table and images -----------------------------------------------------------------------------


def images(side: int = 16, size: float | None = 2.0) -> ArrayStack:
    return ArrayStack(np.ones((2, side, side), np.float32), pixel_size=size)


def test_a_box_other_than_the_tables_is_refused(tmp_path):
    write_mrcs(tmp_path / "p.mrcs", np.random.default_rng(0).normal(size=(2, 16, 16)), 2.0)
    names = ["000001@p.mrcs", "000002@p.mrcs"]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": [1, 1]})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImageSize": [64], "rlnImagePixelSize": [1.0]})
    write_star(tmp_path / "p.star", table, optics)
    with pytest.raises(
        InputError, match=r"rlnImageSize in row 1 is 64, but the images have 16 .* size 4 A"
    ):
        open_source(tmp_path / "p.star")
    cs = pd.DataFrame({"blob/shape_0": [16, 32], "blob/shape_1": [16, 32]})
    with pytest.raises(InputError, match="blob/shape_0 in row 2 is 32"):
        check_agreement(Particles(cs, format="cs", name="p.cs"), images())


def test_a_pixel_size_other_than_the_headers_is_named_once(caplog):
    particles = Particles(pd.DataFrame({"rlnImagePixelSize": [3.0, 3.0]}), name="p.star")
    for stack in (images(size=3.01), images(size=None)):
        check_agreement(particles, stack)
    assert not caplog.text
    for _ in range(2):
        check_agreement(particles, images(size=2.8))
    assert caplog.text.count("3 A in the table and 2.8 A in the headers") == 1


def test_a_binning_that_contradicts_the_pixel_size_is_refused():
    columns = {"rlnImagePixelSize": [7.0, 7.0], "rlnTomoTiltSeriesPixelSize": [1.75, 1.75]}
    good = pd.DataFrame(columns | {"rlnTomoSubtomogramBinning": [4.0, 4.0]})
    check_agreement(Particles(good, name="p.star"), images())
    bad = pd.DataFrame(columns | {"rlnTomoSubtomogramBinning": [4.0, 2.0]})
    with pytest.raises(InputError, match=r"rlnImagePixelSize in row 2 is 7, expected 3.5, rlnTomo"):
        check_agreement(Particles(bad, name="p.star"), images())


def test_a_pixel_size_that_contradicts_its_optics_group_is_refused():
    groups = pd.DataFrame({"rlnOpticsGroup": [2, 1], "rlnImagePixelSize": [3.0, 4.0]})
    table = pd.DataFrame({"rlnOpticsGroup": [2, 2], "rlnImagePixelSize": [3.0, 3.0]})
    check_agreement(Particles(table, groups, name="p.star"), images(size=3.0))
    bad = table.assign(rlnImagePixelSize=[3.0, 6.0])
    with pytest.raises(InputError, match=r"row 2 is 6, expected 3, as in data_optics"):
        check_agreement(Particles(bad, groups, name="p.star"), images(size=3.0))


def test_mirrored_images_have_no_poses():
    table = pd.DataFrame({"rlnAnglePsi": [1.0, 2.0], "rlnIsFlip": [0, 1]})
    with pytest.raises(InputError, match="rlnIsFlip in row 2 is 1, expected 0"):
        Particles(table, name="p.star").poses()
