"""Particles with known 3-D poses: simulate them, check them, compare maps."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modpose.cli.answer import Json, answer, answer_written
from modpose.cli.arguments import (
    AddCtf,
    CtfFile,
    DataDir,
    Defocus,
    Folder,
    ImageBox,
    Images,
    Index,
    InputAgain,
    Inputs,
    Overwrite,
    Partial,
    Pixel,
    PosesFile,
    Resolution,
    RunFolder,
    Seed,
    ShiftStd,
    Snr,
    abundances,
    app,
    simulate_app,
)
from modpose.cli.lazily import lazily
from modpose.cli.tilts import Tomograms, opened_tilts
from modpose.cli.whole import whole_run
from modpose.errors import InputError
from modpose.limits import MOST_MAPS, check_resolution, check_whole
from modpose.simulate.settings import JunkKind, ProjectionSettings

with lazily():
    from modpose import backprojection
    from modpose.backprojection import files as map_files
    from modpose.backprojection import halves
    from modpose.data import given as given_files
    from modpose.data import inputs
    from modpose.data import source as sources
    from modpose.evaluate import conformations as scores
    from modpose.files import writing
    from modpose.fourier import fsc as curves
    from modpose.outputs import content_maps as sharp_maps
    from modpose.outputs import volumes as content_volumes
    from modpose.simulate import conformations, projection_files
    from modpose.simulate import projections as simulator

if TYPE_CHECKING:
    from modpose.content_maps import ContentMaps
    from modpose.run import Run


@simulate_app.command()
def projections(
    out: Folder,
    molecules: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PDB]...",
            show_default=False,
            help="PDB or mmCIF files, each a class.  Without one, a built-in molecule.",
        ),
    ] = None,
    images: Images = ProjectionSettings.n,
    box: ImageBox = ProjectionSettings.box,
    pixel_size: Pixel = ProjectionSettings.pixel_size,
    snr: Snr = ProjectionSettings.snr,
    states: Annotated[
        int | None,
        typer.Option(help="Number of states of the built-in molecule (1 to 4), as a mixture."),
    ] = None,
    hinge: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Smallest and largest hinge angle, degrees."),
    ] = None,
    arm: Annotated[
        str | None,
        typer.Option(metavar="CHAINS", help="Part that rotates about a hinge, such as A,B:1-235."),
    ] = None,
    hinge_at: Annotated[
        str | None, typer.Option(metavar="RESIDUE", help="Residue of the hinge, such as B:236.")
    ] = None,
    morph: Annotated[
        bool, typer.Option("--morph", help="Two files are the ends of one motion.")
    ] = False,
    abundance: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Relative abundance of each class, such as 3,1."),
    ] = None,
    resolution: Resolution = 10.0,
    shift: ShiftStd = ProjectionSettings.shift_std_px,
    poses: PosesFile = None,
    rotation_error: Annotated[
        float, typer.Option(help="RMS error of the consensus rotations, degrees.")
    ] = ProjectionSettings.rotation_error_deg,
    shift_error: Annotated[
        float, typer.Option(help="Standard deviation of the error of their shifts, pixels.")
    ] = ProjectionSettings.shift_error_px,
    ctf: AddCtf = False,
    defocus: Defocus = ProjectionSettings.defocus_range,
    views: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="SHARE DEGREES",
            help="This share of the images is seen within so many degrees of the z axis.",
        ),
    ] = None,
    junk: Annotated[
        float, typer.Option(help="Share of the images that do not show the molecule.")
    ] = ProjectionSettings.junk,
    junk_kind: Annotated[
        JunkKind, typer.Option(help="Such images show only noise, a wrong object, or half each.")
    ] = ProjectionSettings.junk_kind,
    contrast: Annotated[
        float, typer.Option(help="Standard deviation of the contrast of images, such as 0.2.")
    ] = ProjectionSettings.contrast,
    noise_spectrum: Annotated[
        float,
        typer.Option(
            metavar="RATIO",
            help="Noise power at low frequency over that at half the sampling rate; 1: white.",
        ),
    ] = ProjectionSettings.noise_spectrum,
    maps: Annotated[
        int, typer.Option(help="Write the true map of each class at this many hinge angles.")
    ] = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate projections of molecules that move: particles.mrcs and particles.star.

    RELION's columns hold the consensus poses; the truth is in separate columns
    (modposeTruthR00...R22, ...ShiftX/Y, ...Class, ...Hinge, ...Junk, ...Contrast).

    \b
    modpose simulate projections -o hinge --images 5000 --ctf --maps 10
    modpose simulate projections -o mixture --states 3 --ctf --maps 1
    modpose simulate projections -o both --states 3 --hinge -30 30
    modpose simulate projections -o kinase open.pdb closed.pdb --morph --pixel-size 1.5
    modpose simulate projections -o antibody 1igt.pdb --arm A,B:1-235 --hinge-at B:236
    modpose simulate projections -o flawed --ctf --views 0.8 30 --junk 0.1 --contrast 0.2
    """
    check_resolution("--resolution", resolution)
    check_whole("--maps", "the number", maps, 0, MOST_MAPS)
    settings = ProjectionSettings(
        n=images,
        box=box,
        pixel_size=pixel_size,
        snr=snr,
        hinge_range_deg=hinge,
        abundances=abundances(abundance),
        shift_std_px=shift,
        ctf=ctf,
        defocus_range=defocus,
        rotation_error_deg=rotation_error,
        shift_error_px=shift_error,
        views=views,
        junk=junk,
        junk_kind=junk_kind,
        contrast=contrast,
        noise_spectrum=noise_spectrum,
        seed=seed,
    )
    written = [out / name for name in projection_files.WRITTEN]
    writing.refuse_to_replace(written, overwrite)
    given = [path for path in (*(molecules or ()), poses) if path is not None]
    writing.check_outputs(written[:2], overwrite, given)
    writing.check_space(out, 4.0 * images * box**2)
    kinds = None
    if molecules:
        if states is not None:
            raise InputError("--states: given with files, expected one of the two")
        kinds = conformations.conformers_of_files(molecules, resolution, arm, hinge_at, morph)
    elif arm or hinge_at or morph:
        raise InputError("projections: --arm, --hinge-at and --morph need files of coordinates")
    elif states is not None:
        kinds = conformations.built_in_conformers(states)
    known = None
    if poses is not None:
        known = given_files.read_poses(poses, n=images, box=box, pixel_size=pixel_size)
    made = simulator.simulate_projections(settings, kinds, known)
    star = projection_files.write_projections(made, out, maps, overwrite)
    answer_written(images, "images", star, as_json)


@app.command()
def volumes(
    run: RunFolder,
    out: Folder,
    at: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Content to draw, one row per volume.")
    ] = None,
    cluster: Annotated[
        int | None, typer.Option(metavar="K", help="The centres of K clusters of content.")
    ] = None,
    along: Annotated[
        int | None, typer.Option(metavar="PC", help="Along a principal component: 1, 2, ...")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="A..B", help="From image A to image B (positions from 0)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="--along, --path: number of volumes.")] = 10,
    maps: Annotated[
        Literal["sharp", "model"] | None,
        typer.Option(
            help="From all images near each content, or of the model alone; default: sharp for "
            "recipe modpose-posed, if the images are there."
        ),
    ] = None,
    functions: Annotated[
        int | None,
        typer.Option(min=1, help="Sharp maps: number of functions of content; default: chosen."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="MRC", help="Sharp maps: where the molecule may be, from 0 to 1."),
    ] = None,
    focus: Annotated[
        Path | None,
        typer.Option(
            metavar="MRC",
            help="Sharp maps: learn what moves inside, from 0 to 1; what moves outside is a "
            "nuisance.",
        ),
    ] = None,
    refine_poses: Annotated[
        bool,
        typer.Option("--refine-poses", help="Sharp maps: correct the pose of each image a little."),
    ] = False,
    symmetry: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Sharp maps: impose a point group, such as C4 or D7."),
    ] = None,
    flip_hand: Annotated[
        bool, typer.Option("--flip-hand", help="Mirror the volumes: the other handedness.")
    ] = False,
    moved: InputAgain = None,
    datadir: DataDir = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw volumes along the content of RUN: MRC maps, their content, and a strip of pictures.

    Sharp maps come with half maps, their FSC, local resolution, and the number of images behind
    each.  They are computed once and kept in RUN; --functions, --mask, --focus, --refine-poses or
    --symmetry computes them again.  The path between two images then stays where images are.

    \b
    modpose volumes run -o pc1 --along 1
    modpose volumes run -o centres --cluster 6
    modpose volumes run -o path --path 3..120 --steps 20 --flip-hand
    modpose volumes run -o arm --along 1 --focus arm.mrc
    modpose volumes run -o quick --along 1 --maps model
    """
    if sum(choice is not None for choice in (at, cluster, along, path)) != 1:
        raise InputError("volumes: expected one of --at, --cluster, --along and --path")
    opened = whole_run(run, moved, datadir)
    z = opened.content()
    if not z.shape[1]:
        raise InputError(f"{run}: the model has no content (z_dim is 0), so there is one volume")
    if at is not None:
        writing.refuse_input_as_output([out / "content.csv"], [at])
    sharp = _sharp(opened, maps, functions, mask, focus, refine_poses, symmetry)
    z = z if sharp is None else sharp.z
    if at is not None:
        stops = content_volumes.at_file(at, z.shape[1])
    elif cluster is not None:
        stops = content_volumes.at_clusters(z, cluster, opened.config.seed)
    elif along is not None:
        stops = content_volumes.along_component(z, along, steps)
    else:
        stops = content_volumes.along_path(z, str(path), steps, dense=sharp is not None)
    written = content_volumes.write_volumes(
        opened, stops, out, content_maps=sharp, flip_hand=flip_hand, overwrite=overwrite
    )
    line = f"wrote {len(stops.z)} volumes to {out}; preview: {written[-1]}"
    answer({"volumes": len(stops.z), "content": stops.z, "written": written}, [line], as_json)


def _sharp(
    run: Run,
    maps: str | None,
    functions: int | None,
    mask: Path | None,
    focus: Path | None,
    refine_poses: bool,
    symmetry: str | None,
) -> ContentMaps | None:
    """Return the sharp maps to draw; None, and a note why, for those of the model."""
    given = any(option is not None for option in (functions, mask, focus, symmetry)) or refine_poses
    if maps == "model":
        if given:
            raise InputError(
                "volumes: --functions, --mask, --focus, --refine-poses and --symmetry are for "
                "sharp maps, not --maps model"
            )
        return None
    asked = maps == "sharp" or given
    if not (asked or sharp_maps.has_sharp_maps(run)):
        return None
    try:
        return sharp_maps.content_maps_of(
            run,
            functions=functions,
            mask=mask,
            focus=focus,
            refine_poses=refine_poses,
            symmetry=symmetry,
        )
    except InputError as error:
        if asked:
            raise
        typer.echo(f"note: these are maps of the model, not sharp ones ({error})", err=True)
        return None


@app.command()
def backproject(
    source: Inputs,
    out: Folder,
    poses: PosesFile = None,
    ctf: CtfFile = None,
    datadir: DataDir = None,
    index: Index = None,
    partial: Partial = False,
    invert: Annotated[
        bool, typer.Option("--invert", help="Make dark particles bright first.")
    ] = False,
    box: Annotated[
        int | None, typer.Option(help="Fourier-crop to this many pixels; default: at most 128.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check whether poses and contrast fit.")
    ] = True,
    tomograms: Tomograms = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Check images and their given poses before any training: half maps and their FSC.

    For tilt series (RELION 5, WarpTools), the tilt, CTF and dose of each image are used; all images
    of a particle are in one half.

    Reports inverted contrast, transposed rotations, shifts with the wrong sign, rows of images in
    the wrong order, and poses that do not match the images.

    \b
    modpose backproject particles.star -o check
    modpose backproject particles.mrcs --poses poses.pkl --ctf ctf.pkl -o check --invert
    modpose backproject optimisation_set.star -o check
    """
    writing.refuse_to_replace(map_files.outputs_in(out), overwrite)
    series = opened_tilts("backproject", source, tomograms, False, datadir, poses, ctf, index)
    if series is not None:
        opened = series.images
    else:
        opened = sources.open_source(
            source, datadir=datadir, index=index, poses=poses, ctf=ctf, partial=partial
        )
    writing.check_outputs(
        map_files.outputs_in(out), overwrite, inputs.files_of_source(opened, index, poses, ctf)
    )
    dataset = halves.open_posed(opened, box=box, invert=invert)
    checked = backprojection.check_poses(dataset).lines() if check else []
    for line in () if as_json else checked:
        typer.echo(line)
    made = backprojection.reconstruct_halves(dataset)
    map_files.write_halves(made, out, overwrite)
    facts = {
        "images": dataset.n,
        "resolution": made.curve.resolution(curves.HALF_MAPS),
        "unit": "px" if made.curve.pixel_size is None else "A",
        "check": checked,
        "written": [out / "map.mrc"],
    }
    half = f"half maps of {dataset.n} images: {made.curve.sentence(curves.HALF_MAPS)}"
    answer(facts, [half, f"wrote {out / 'map.mrc'}"], as_json)


@app.command()
def score(
    run: RunFolder,
    maps: Annotated[
        Path, typer.Option(metavar="DIR", help="True maps, from simulate projections --maps.")
    ],
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="Also give the best possible scores, with the truth known."
        ),
    ] = False,
    moved: InputAgain = None,
    datadir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Score RUN against a known truth: its maps (FSC), motion (rank) and classes (ARI).

    \b
    modpose score run --maps hinge/maps --reference
    """
    opened = whole_run(run, moved, datadir)
    found = scores.score_run(opened, maps, reference)
    answer(asdict(found), found.lines(), as_json)
