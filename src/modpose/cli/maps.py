"""Particles with known 3-D poses: check them, draw their maps, score a run."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import (
    CtfFile,
    DataDir,
    Device,
    Folder,
    Index,
    InputAgain,
    Inputs,
    Overwrite,
    Partial,
    PosesFile,
    RunFolder,
    app,
)
from modpose.cli.lazily import lazily
from modpose.cli.tilts import Tomograms, opened_tilts
from modpose.cli.whole import whole_run
from modpose.errors import InputError

with lazily():
    from modpose import backprojection
    from modpose.backprojection import files as map_files
    from modpose.backprojection import halves
    from modpose.data import inputs
    from modpose.data import source as sources
    from modpose.evaluate import conformations as scores
    from modpose.files import writing
    from modpose.fourier import fsc as curves
    from modpose.outputs import content_maps as sharp_maps
    from modpose.outputs import volumes as content_volumes
    from modpose.run import folder as folders

if TYPE_CHECKING:
    from modpose.content_maps import ContentMaps
    from modpose.outputs.volumes import Floats, Stops
    from modpose.run import Run

STEPS = 10
"""Volumes along a component or a path."""


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
    steps: Annotated[
        int | None, typer.Option(min=2, help=f"--along, --path: number of volumes ({STEPS}).")
    ] = None,
    maps: Annotated[
        Literal["sharp", "new", "model"] | None,
        typer.Option(
            help="From all images near each content; the same, computed again with the options "
            "given now and no others; or of the model alone.  Default: sharp for recipe "
            "modpose-posed, if the images are there."
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
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw volumes along the content of RUN: MRC maps, their content, and a strip of pictures.

    Sharp maps come with half maps, their FSC, local resolution, and the number of images behind
    each.  They are computed once and kept in RUN; --functions, --mask, --focus, --refine-poses or
    --symmetry computes them again, --maps new without these.  A principal component, and the path
    between two images, are then followed where images are.

    \b
    modpose volumes run -o pc1 --along 1
    modpose volumes run -o centres --cluster 6
    modpose volumes run -o path --path 3..120 --steps 20 --flip-hand
    modpose volumes run -o arm --along 1 --focus arm.mrc
    modpose volumes run -o quick --along 1 --maps model
    """
    if sum(choice is not None for choice in (at, cluster, along, path)) != 1:
        raise InputError("volumes: expected one of --at, --cluster, --along and --path")
    if steps is not None and (at is not None or cluster is not None):
        option = "--at" if cluster is None else "--cluster"
        raise InputError.of("volumes", "--steps", f"given with {option}", "--along or --path")
    steps = STEPS if steps is None else steps
    opened = whole_run(run, moved, datadir)
    z = opened.content()
    if not z.shape[1]:
        raise InputError(f"{run}: the model has no content (z_dim is 0), so there is one volume")
    if at is not None:
        writing.refuse_input_as_output([out / "content.csv"], [at])

    def stops_of(z: Floats, error: Floats | None = None, name: str = "z") -> Stops:
        if at is not None:
            return content_volumes.at_file(at, z.shape[1], name)
        if cluster is not None:
            return content_volumes.at_clusters(z, cluster, opened.config.seed)
        if along is not None:
            return content_volumes.along_component(z, along, steps, error)
        return content_volumes.along_path(z, str(path), steps, error)

    # refuse before the sums; the content of a focus is not known then
    known = focus is None and not (opened.path / folders.CONTENT_MAPS).is_file()
    count = len(stops_of(z).z) if known else 1
    content_volumes.check_volumes(opened, count, out, overwrite=overwrite)
    sharp = _sharp(opened, maps, functions, mask, focus, refine_poses, symmetry, device)
    name = content_volumes.content_name(opened, sharp)
    stops = (
        stops_of(z)
        if sharp is None
        else stops_of(sharp.z, content_volumes.usual_error(opened, sharp), name)
    )
    written = content_volumes.write_volumes(
        opened,
        stops,
        out,
        content_maps=sharp,
        flip_hand=flip_hand,
        overwrite=overwrite,
        device=device,
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
    device: str | None,
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
    asked = maps is not None or given
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
            overwrite=maps == "new",
            device=device,
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
    device: Device = None,
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
    checked = backprojection.check_poses(dataset, device=device).lines() if check else []
    for line in () if as_json else checked:
        typer.echo(line)
    made = backprojection.reconstruct_halves(dataset, device=device)
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
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score RUN against a known truth: its maps (FSC), motion (rank) and classes (ARI).

    \b
    modpose score run --maps hinge/maps --reference
    """
    opened = whole_run(run, moved, datadir)
    found = scores.score_run(opened, maps, reference, device=device)
    answer(asdict(found), found.lines(), as_json)
