"""Known columns of particle tables of RELION and cryoSPARC, and how modpose treats them.

Honoured: it changes the computation.  Refused: it would change the result but is not modelled; it
is an error unless its value means "nothing to do".  Harmless: it is kept and changes nothing.
Columns in none of these lists are reported once when a table is opened.

``python -m modpose.data.tags`` prints the page ``docs/tags.md``.
"""

from __future__ import annotations

from collections.abc import Iterable

from modpose.data.particles import Particles, listed

HONOURED: dict[str, str] = {
    "rlnImageName": "the image: its number in a stack, and the file",
    "rlnOpticsGroup": "the particle's row of data_optics",
    "rlnImagePixelSize": "Å per pixel",
    "rlnPixelSize": "Å per pixel, if rlnImagePixelSize is missing",
    "rlnDetectorPixelSize": "µm of the detector: Å per pixel with rlnMagnification (RELION 3.0)",
    "rlnMagnification": "see rlnDetectorPixelSize",
    "rlnImageSize": "pixels per side; images of another size are refused",
    "rlnImageDimensionality": "2 for images, 3 for volumes",
    "rlnTomoTiltSeriesPixelSize": "Å per pixel of the tilt series; times the binning for volumes",
    "rlnTomoSubtomogramBinning": "see rlnTomoTiltSeriesPixelSize; must agree with the pixel size",
    "rlnVoltage": "kV",
    "rlnSphericalAberration": "mm",
    "rlnAmplitudeContrast": "fraction",
    "rlnDefocusU": "Å, positive underfocus",
    "rlnDefocusV": "Å",
    "rlnDefocusAngle": "degrees",
    "rlnPhaseShift": "degrees, of a phase plate",
    "rlnCtfBfactor": "Å², a damping; the absolute value of negative ones (Warp, M) is used",
    "rlnCtfScalefactor": "factor of the CTF",
    "rlnCtfDataArePhaseFlipped": "1: the CTF is replaced by its absolute value",
    "rlnCtfDataAreCtfPremultiplied": "1: images are c² F + c noise; their noise is whitened",
    "rlnBeamTiltX": "mrad; its phases are removed from the images",
    "rlnBeamTiltY": "mrad",
    "rlnOddZernike": "odd aberrations; their phases are removed from the images",
    "rlnCtfImage": "the CTF of a volume, a mask of its wedge, or sums of CTF² (RELION 4)",
    "rlnTomoName": "the tomogram, for its tilts (--wedge tomograms.star)",
    "rlnTomoVisibleFrames": "the tilts of the tomogram that show the particle",
    "rlnAngleRot": "degrees, a given pose",
    "rlnAngleTilt": "degrees, a given pose",
    "rlnAnglePsi": "degrees, a given pose",
    "rlnOriginX": "pixels, a given shift",
    "rlnOriginY": "pixels",
    "rlnOriginZ": "pixels",
    "rlnOriginXAngst": "Å, a given shift",
    "rlnOriginYAngst": "Å",
    "rlnOriginZAngst": "Å",
    "rlnRandomSubset": "half of the data, for half maps",
    "rlnClassNumber": "known class, if requested",
    "uid": "identity of a particle, for joining tables",
    "blob/path": "the file of the image",
    "blob/idx": "its number in that file, from 0",
    "blob/psize_A": "Å per pixel",
    "blob/shape": "pixels per side; images of another size are refused",
    "blob/sign": "-1: particles are dark; the images are multiplied by it",
    "ctf/accel_kv": "kV",
    "ctf/cs_mm": "mm",
    "ctf/amp_contrast": "fraction",
    "ctf/df1_A": "Å, positive underfocus",
    "ctf/df2_A": "Å",
    "ctf/df_angle_rad": "radians",
    "ctf/phase_shift_rad": "radians",
    "ctf/bfactor": "Å²",
    "alignments3D/pose": "rotation vector, a given pose",
    "alignments3D/shift": "pixels of alignments3D/psize_A",
    "alignments3D/psize_A": "Å per pixel of the shifts",
}
REFUSED: dict[str, str] = {
    "rlnCtfDataAreCtfCorrected": "1 (CTF-corrected images), if the CTF is modelled",
    "rlnIsFlip": "1 (the image is mirrored), if poses are used",
    "rlnEvenZernike": "a phase of the CTF changes by more than 20° in the box that is used",
    "rlnMagMat00": "the edge of the box that is used moves by more than half a pixel",
    "rlnMagMat01": "as rlnMagMat00",
    "rlnMagMat10": "as rlnMagMat00",
    "rlnMagMat11": "as rlnMagMat00",
    "ctf/anisomag": "as rlnMagMat00",
    "ctf/shift_A": "a phase changes by more than 20° in the box that is used",
    "ctf/tilt_A": "as ctf/shift_A",
    "ctf/trefoil_A": "as ctf/shift_A",
    "ctf/tetra_A": "as ctf/shift_A",
    "rlnTomoSubTomosAre2DStacks": "1 (many images per particle)",
}
_NO_MATTER = """
rlnMicrographName rlnMicrographId rlnMicrographNameNoDW rlnMicrographPixelSize
rlnMicrographOriginalPixelSize rlnMicrographMovieName rlnMicrographBinning rlnMicrographGainName
rlnMicrographPreExposure rlnMicrographDoseRate rlnMicrographFrameNumber rlnMovieFrameNumber
rlnMovieFramesNumber rlnNrOfFrames rlnCoordinateX rlnCoordinateY rlnCoordinateZ
rlnCenteredCoordinateXAngst rlnCenteredCoordinateYAngst rlnCenteredCoordinateZAngst
rlnGroupName rlnGroupNumber rlnGroupNrParticles rlnGroupScaleCorrection rlnOpticsGroupName
rlnOpticsGroupNrParticles rlnBeamTiltClass rlnBeamTiltGroupName rlnMtfFileName rlnCtfMaxResolution
rlnCtfFigureOfMerit rlnCtfAstigmatism rlnCtfValidationScore rlnCtfIceRingDensity rlnFinalResolution
rlnCtfPowerSpectrum rlnCtfParametersRefinement rlnCtfFitResolution rlnDetectorName
rlnAutopickFigureOfMerit rlnParticleFigureOfMerit rlnParticleSelectionType rlnParticleSelectZScore
rlnParticleId rlnParticleName rlnParticleNumber rlnOriginalParticleName rlnImageOriginalName
rlnImageId rlnImageWeight rlnImageSizeX rlnImageSizeY rlnImageSizeZ rlnReconstructImageName
rlnMaskName rlnNormCorrection rlnLogLikeliContribution rlnMaxValueProbDistribution
rlnNrOfSignificantSamples rlnAveragePmax rlnPerParticleContrast rlnCtfValue
rlnAnglePsiPrior rlnAngleTiltPrior rlnAngleRotPrior rlnAnglePsiFlip rlnAnglePsiFlipRatio
rlnAngleRotFlipRatio rlnOriginXPrior rlnOriginYPrior rlnOriginZPrior rlnOriginXPriorAngst
rlnOriginYPriorAngst rlnOriginZPriorAngst rlnAngleRotPriorFlipped rlnHelicalTubeID
rlnHelicalTubePitch rlnHelicalTrackLength rlnHelicalTrackLengthAngst rlnHelicalRise rlnHelicalTwist
rlnSymmetryGroup rlnBodyRotX rlnDoseRate rlnAccumulatedDose rlnAccumulatedMotionTotal
rlnAccumulatedMotionEarly rlnAccumulatedMotionLate rlnTomoParticleName rlnTomoParticleId
rlnTomoManifoldIndex rlnTomoSubtomogramRot rlnTomoSubtomogramTilt rlnTomoSubtomogramPsi
rlnTomoSubtomogramRandomSubset rlnTomoImportParticleFile rlnTomoHand rlnTomoTiltAxisAngle
rlnTomoFrameCount rlnTomoTomogramBinning rlnSelected rlnClassDistribution rlnClassIndex
rlnBfactorPerFrame rlnSampling rlnReferenceImage rlnStdDevX rlnMinRadiusNnInterpolation
rlnEnabled rlnSortedIndex rlnLocalSymmetryFile rlnPredictedClassScore rlnAlphaRot rlnBfactorUsed
rlnExtractJob rlnPreviousAngleRot rlnTiltSeriesName rlnBeamTiltMajor
blob/import_sig blob/sample_idx ctf/type ctf/exp_group_id ctf/scale ctf/scale_const
ctf/cross_corr_ctffind4 ctf/ctf_fit_to_A ctf/fig_of_merit_gctf ctf/ice_thickness_rel
ctf/spline_path ctf/path mscope_params/accel_kv mscope_params/cs_mm mscope_params/exp_group_id
mscope_params/phase_plate mscope_params/beam_shift mscope_params/beam_shift_known
mscope_params/neg_stain mscope_params/defect_path mscope_params/total_dose_e_per_A2
sym_expand/helix_num_rises sym_expand/helix_rise sym_expand/helix_twist sym_expand/idx
sym_expand/src_uid filament/filament_uid
"""
HARMLESS = frozenset(_NO_MATTER.split())
PREFIXES = (
    "modpose",
    "cisTEM",
    "alignments2D/",
    "alignments3D/",
    "alignments3D_multi/",
    "alignments_class3D_",
    "alignments_class_3D",
    "components_mode_",
    "location/",
    "motion/",
    "pick_stats/",
    "filament/",
    "ml_properties/",
    "rlnHelical",
    "rlnAutopick",
)
"""Columns with these prefixes are harmless too (or modpose's own)."""


def status_of(column: str) -> str:
    """Return ``honoured``, ``refused``, ``harmless``, or ``unknown``.

    Parameters
    ----------
    column
        A column name; a component of a vector (``field_0``) counts as its field.
    """
    field, _, number = column.rpartition("_")
    name = field if "/" in field and number.isdigit() else column
    if name in HONOURED:
        return "honoured"
    if name in REFUSED:
        return "refused"
    if name in HARMLESS or column in HARMLESS or name.startswith(PREFIXES):
        return "harmless"
    return "unknown"


def unknown_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that are not in any list."""
    return [column for column in columns if status_of(column) == "unknown"]


def columns_in(particles: Particles) -> list[str]:
    """Return the columns of the table and of its optics groups."""
    optics = [] if particles.optics is None else list(particles.optics.columns)
    return list(dict.fromkeys(map(str, [*particles.table.columns, *optics])))


def note_unknown(particles: Particles) -> None:
    """Log once the unknown columns of a RELION or cryoSPARC table."""
    if particles.format not in ("star", "cs"):
        return
    unknown = unknown_columns(columns_in(particles))
    if unknown:
        particles.note(f"unknown columns, which are kept and ignored: {listed(unknown)}")


def page() -> str:
    """Return the page of the documentation, Markdown."""
    lines = [
        "# Columns of tables",
        "",
        "This page says how modpose treats each column of a RELION or cryoSPARC table of "
        "particles.",
        "It is made from the code (`python -m modpose.data.tags`).  A column that is not listed is",
        "kept, changes nothing, and is reported once when the table is opened.",
        "",
        "## Honoured",
        "",
        "| column | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in HONOURED.items()),
        "",
        "## Refused",
        "",
        "These change the meaning of the pixels in a way that is not modelled.  They are accepted "
        "if",
        "their value means no change, or if their effect is negligible.",
        "",
        "| column | refused if |",
        "|---|---|",
        *(f"| `{name}` | {when} |" for name, when in REFUSED.items()),
        "",
        "## Harmless",
        "",
        "They are kept and change nothing.  The contrast of single particles (`rlnNormCorrection`,",
        "`ctf/scale`, `alignments3D/alpha`) and the transfer function of the detector",
        "(`rlnMtfFileName`) are not modelled.",
        "",
        ", ".join(f"`{name}`" for name in sorted(HARMLESS)) + "; and all that begin with",
        ", ".join(f"`{prefix}`" for prefix in PREFIXES) + ".",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
