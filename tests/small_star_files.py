"""One STAR file of each kind that other programs write, as short as its kind can be told."""

STAR_FILES = {
    "malformed_duplicate_tag": """
data_particles
loop_
_rlnImageName #1
_rlnVoltage #2
1@a.mrcs 300.0
loop_
_rlnImageName #1
_rlnVoltage #2
2@a.mrcs 300.0
""",
    "malformed_extra_field": """
data_particles
loop_
_rlnImageName #1
_rlnVoltage #2
1@a.mrcs 300.0
2@a.mrcs 300.0 extra
""",
    "relion_job": """
# version 30001
data_job
_rlnJobTypeLabel             relion.refine3d
_rlnJobIsContinue                       0

# version 30001
data_joboptions_values
loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
auto_faster        No
auto_local_sampling "1.8 degrees"
    fn_img particles.star
   fn_mask         ""
""",
    "relion_model": """
data_model_general
_rlnReferenceDimensionality                        3
_rlnPixelSize                               1.250000

data_model_classes
loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
class001.mrc     1.000000

data_model_class_1
loop_
_rlnSpectralIndex #1
_rlnResolution #2
0 0.0
1 0.005
""",
    "relion_mtf_k2_300kV": """
data_mtf_k2_300kv
loop_
_rlnResolutionInversePixel
_rlnMtfValue
0.0000 1.00000
0.0005 0.988714
""",
    "cryocat_relion5_run_tomograms": """
# version 50001
data_global
loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnTomoTiltSeriesPixelSize #3
_rlnTomoTiltSeriesStarFile #4
TS_01 300.0 1.35 tilt_series/TS_01.star
TS_03 300.0 1.35 tilt_series/TS_03.star
""",
    "cryocat_relion5_TS_01_tilt": """
# version 50001
data_TS_01
loop_
_rlnMicrographMovieName #1
_rlnTomoNominalStageTiltAngle #2
_rlnMicrographName #3
_rlnDefocusU #4
_rlnTomoYTilt #5
frames/TS_01_-57.mrc -56.9985 TS_01_-57.mrc 41000.0 -57.1
frames/TS_01_0.mrc 0.0010 TS_01_0.mrc 40000.0 -0.1
""",
    "cylindra_relion5_optimisation_set": """
data_optimisation_set
loop_
_rlnTomoParticlesFile #1
_rlnTomoTomogramsFile #2
particles.star tomograms.star
""",
    "edge_run_it025_sampling_3D": """
# version 30001
data_sampling_general
_rlnIs3DSampling                                    1
_rlnHealpixOrder                                    2
_rlnPsiStep                                 15.000000

# version 30001
data_sampling_directions
loop_
_rlnAngleRot #1
_rlnAngleTilt #2
45.0 80.4
56.2 70.5
""",
    "edge_postprocess": """
# RELION postprocess; version 3.0.8
data_general
_rlnFinalResolution                        16.363636
_rlnUnfilteredMapHalf1                  half1.mrc

data_fsc
loop_
_rlnSpectralIndex #1
_rlnResolution #2
_rlnFourierShellCorrelationCorrected #3
0 0.001001 1.0
1 0.001389 0.999943
""",
    "portal_stopgap": """
data_stopgap_motivelist
loop_
_motl_idx
_tomo_num
_subtomo_num
_phi
_psi
_the
_class
1 1 1 90 180 45 1
2 1 2 -45 120 90 1
""",
    "relion30_particles": """
data_model_class_1
loop_
_rlnAnglePsi #1
_rlnImageName #2
_rlnMagnification #3
_rlnDetectorPixelSize #4
_rlnVoltage #5
71.118492 000001@sample.mrcs 37368.5 5.0 300.0
-114.981686 000002@sample.mrcs 37368.5 5.0 200.0
""",
    "relion31_particles": """
data_optics
loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMtfFileName #3 [Modulation Transfer Function]
_rlnVoltage #4
_rlnImagePixelSize #5
opticsGroup1 1 mtf.star 300.0 1.400000
opticsGroup2\t2\tmtf.star\t200.0 1.400000
data_particles
loop_
_rlnImageName #1
_rlnAnglePsi #2
_rlnOpticsGroup #3
000001@sample.mrcs 71.1 1
000002@sample.mrcs -114.9 2
""",
    "relion5_particles": """
# version 50001
data_optics
loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnImageSize #6
_rlnImageDimensionality #7
1 100.0 1.6 0.1 0.890000 448 2

# version 50001
data_particles
loop_
_rlnImageName #1
_rlnAnglePsi #2
_rlnOpticsGroup #3
000001@sample.mrcs 71.1 1
""",
    "cylindra_relion5_Refine3D_data": """
# version 50001
data_optics
loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnImageDimensionality #3
_rlnTomoSubtomogramBinning #4
_rlnImagePixelSize #5
1 200.0 3 4.0 12.420000

# version 50001
data_particles
loop_
_rlnTomoName #1
_rlnAngleRot #2
_rlnAngleTilt #3
_rlnAnglePsi #4
_rlnOpticsGroup #5
_rlnImageName #6
_rlnCtfImage #7
TS_01 1.0 2.0 3.0 1 1_data.mrc 1_ctf.mrc
TS_01 4.0 5.0 6.0 1 2_data.mrc 2_ctf.mrc
""",
    "PfCRT_FinalRefinement": """
# RELION; version 3.0.6
data_images
loop_
_rlnAnglePsi #1
_rlnDetectorPixelSize #2
_rlnImageName #3
_rlnMagnification #4
98.2 1.0 000001@Extract/gone.mrcs 10000.0
-12.7 1.0 000002@Extract/gone.mrcs 10000.0
""",
}
