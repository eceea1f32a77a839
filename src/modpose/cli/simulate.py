"""Simulated images: simulate."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.answer import Json, answer, answer_written
from modpose.cli.arguments import (
    AddCtf,
    Defocus,
    Folder,
    ImageBox,
    Images,
    Overwrite,
    Pixel,
    PosesFile,
    Resolution,
    Seed,
    ShiftStd,
    Snr,
    abundances,
    needs,
    simulate_app,
)
from modpose.cli.lazily import lazily
from modpose.errors import InputError
from modpose.limits import MOST_MAPS, check_resolution, check_whole
from modpose.simulate.settings import (
    CharacterSettings,
    HingeSettings,
    JunkKind,
    ProjectionSettings,
)

with lazily():
    from modpose.data import given as given_files
    from modpose.files import writing
    from modpose.simulate import characters as letters
    from modpose.simulate import conformations, projection_files
    from modpose.simulate import field as fields
    from modpose.simulate import particles as hinged
    from modpose.simulate import projections as simulator


@simulate_app.command()
def particles(
    out: Folder,
    images: Images = HingeSettings.n,
    box: ImageBox = HingeSettings.box,
    pixel_size: Pixel = HingeSettings.pixel_size,
    snr: Snr = HingeSettings.snr,
    hinge: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest hinge angle, degrees.")
    ] = HingeSettings.hinge_range_deg,
    shift: ShiftStd = HingeSettings.shift_std_px,
    mirrored: Annotated[
        float, typer.Option(help="Fraction of the images that show the molecule mirrored.")
    ] = HingeSettings.mirrored,
    scale_std: Annotated[
        float,
        typer.Option(help="Standard deviation of the logarithm of the scale of the molecule."),
    ] = HingeSettings.scale_std,
    ctf: AddCtf = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate a hinged macromolecule in random poses: particles.mrcs and particles.star.

    The truth is in separate STAR columns (modposeTruthAngle, ...Hinge, ...ShiftX/Y, ...Mirrored,
    ...Scale).

    \b
    modpose simulate particles -o demo --images 3000 --box 40 --snr 0.5
    """
    settings = HingeSettings(
        n=images,
        box=box,
        pixel_size=pixel_size,
        snr=snr,
        hinge_range_deg=hinge,
        shift_std_px=shift,
        mirrored=mirrored,
        scale_std=scale_std,
        ctf=ctf,
        seed=seed,
    )
    star = hinged.write_particles(hinged.simulate_particles(settings), out, overwrite)
    answer_written(images, "images", star, as_json)


@simulate_app.command()
def field(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write to.")],
    objects: Annotated[int, typer.Option(help="Number of molecules.")] = 200,
    side: Annotated[int, typer.Option(help="Side of the image, pixels.")] = 1024,
    box: Annotated[
        int, typer.Option(help="Side of the box of each, in which --snr is measured, pixels.")
    ] = HingeSettings.box,
    pixel_size: Annotated[
        float, typer.Option(help="Angstrom per pixel.")
    ] = HingeSettings.pixel_size,
    snr: Annotated[float, typer.Option(help="var(signal) / var(noise) inside the box.")] = 0.1,
    hinge: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest hinge angle, degrees.")
    ] = HingeSettings.hinge_range_deg,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Plant hinged macromolecules in one large image: field.mrc and coordinates.star.

    \b
    modpose simulate field -o field --objects 200 --snr 0.1
    modpose pick field/field.mrc -o picks.star --radius 14
    """
    settings = HingeSettings(
        n=objects, box=box, pixel_size=pixel_size, snr=snr, hinge_range_deg=hinge, seed=seed
    )
    writing.refuse_to_replace([out / name for name in fields.WRITTEN], overwrite)
    image = fields.write_field(fields.simulate_field(settings, side), out, overwrite)
    line = f"wrote an image with {objects} molecules to {image}"
    answer({"molecules": objects, "written": [image]}, [line], as_json)


@simulate_app.command()
def projections(
    context: typer.Context,
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
    needs(context, "defocus", "--ctf", ctf)
    needs(context, "junk_kind", "--junk", junk > 0)
    needs(context, "resolution", "files of coordinates", bool(molecules))
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


@simulate_app.command()
def alphanumeric(
    out: Folder,
    images: Images = CharacterSettings.n,
    characters: Annotated[
        str, typer.Option(help="The classes, one after the other.")
    ] = CharacterSettings.characters,
    box: ImageBox = CharacterSettings.box,
    max_angle: Annotated[
        int, typer.Option(help="Angles are whole degrees, smaller than this on either side.")
    ] = CharacterSettings.max_angle_deg,
    max_shift: Annotated[
        float, typer.Option(help="Shifts are uniform up to this on each axis, pixels.")
    ] = CharacterSettings.max_shift_px,
    grey: Annotated[bool, typer.Option("--grey", help="Smooth edges; else 0 and 1.")] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw letters and digits rotated by less than 45 degrees: particles.mrcs and particles.star.

    The truth is kept in separate STAR columns (modposeTruthTemplate is the character, ...Class
    its number, ...Angle, ...ShiftX/Y).

    \b
    modpose simulate alphanumeric -o known --characters abdeijzk --images 10000
    modpose simulate alphanumeric -o unseen --characters 2xp --images 300 --seed 1
    """
    settings = CharacterSettings(
        n=images,
        characters=characters,
        box=box,
        max_angle_deg=max_angle,
        max_shift_px=max_shift,
        binary=not grey,
        seed=seed,
    )
    star = hinged.write_particles(letters.simulate_alphanumeric(settings), out, overwrite)
    answer_written(images, "images", star, as_json)
