"""Simulated volumes and tilt series: simulate."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.answer import Json, answer, answer_written
from modpose.cli.arguments import (
    AddCtf,
    Defocus,
    Folder,
    ImageBox,
    MaxShift,
    Overwrite,
    Pixel,
    Resolution,
    Seed,
    TiltRange,
    VolumeBox,
    abundances,
    needs,
    simulate_app,
)
from modpose.cli.lazily import lazily
from modpose.limits import check_resolution
from modpose.simulate.subtomogram_settings import Noise, Orientations, SnrOver, SubtomogramSettings
from modpose.simulate.tilt_settings import Layout, Order, TiltSettings

with lazily():
    from modpose.files import writing
    from modpose.simulate import species as kinds
    from modpose.simulate import subtomogram_files, tilt_series, tilt_stack_files, tilt_stacks
    from modpose.simulate import subtomograms as simulator
    from modpose.simulate import tetrominoes as cubes


@simulate_app.command()
def subtomograms(
    context: typer.Context,
    out: Folder,
    molecules: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PDB]...",
            show_default=False,
            help="Molecules: PDB or mmCIF files.  Without one, assemblies of Gaussian blobs.",
        ),
    ] = None,
    volumes: Annotated[
        int, typer.Option(help="Number of volumes, of all molecules.")
    ] = SubtomogramSettings.n,
    assemblies: Annotated[
        int, typer.Option(help="Number of built-in molecules, if no file is given.")
    ] = 1,
    hinge: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Use the built-in molecule with a hinge, with angles in this range, degrees."
        ),
    ] = None,
    abundance: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Relative abundance of each molecule, such as 10,1."),
    ] = None,
    box: VolumeBox = SubtomogramSettings.box,
    pixel_size: Annotated[
        float, typer.Option(help="Angstrom per voxel.")
    ] = SubtomogramSettings.pixel_size,
    resolution: Resolution = 15.0,
    tilt_range: TiltRange = SubtomogramSettings.tilt_range_deg,
    max_shift: MaxShift = SubtomogramSettings.max_shift_px,
    ctf: AddCtf = False,
    defocus: Defocus = SubtomogramSettings.defocus_range,
    noise: Annotated[
        Noise,
        typer.Option(help="Independent voxels; white outside the wedge; as in a tomogram; none."),
    ] = SubtomogramSettings.noise,
    snr: Annotated[float, typer.Option(help="var(signal) / var(noise).")] = SubtomogramSettings.snr,
    snr_over: Annotated[
        SnrOver,
        typer.Option(help="Region for var(signal): the box, or 300 voxels per side."),
    ] = SubtomogramSettings.snr_over,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare with back-projected tilt series."),
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate subtomograms in random poses with a missing wedge: MRC files and a STAR.

    The truth is in separate STAR columns (modposeTruthR00...R22, ...ShiftX/Y/Z, ...Class).

    \b
    modpose simulate subtomograms -o demo --assemblies 4 --volumes 600 --snr 0.1
    modpose simulate subtomograms -o demo 1bxn.pdb 4hhb.cif --abundance 10,1 --box 32
    modpose simulate subtomograms -o clean *.pdb --box 64 --pixel-size 4 --resolution 10 \\
        --noise none --tilt-range -90 90 --max-shift 0
    """
    settings = SubtomogramSettings(
        n=volumes,
        box=box,
        pixel_size=pixel_size,
        snr=snr,
        snr_over=snr_over,
        tilt_range_deg=tilt_range,
        max_shift_px=max_shift,
        ctf=ctf,
        defocus_range=defocus,
        noise=noise,
        abundances=abundances(abundance),
        hinge_range_deg=hinge,
        seed=seed,
    )
    check_resolution("--resolution", resolution)
    needs(context, "defocus", "--ctf", ctf)
    for option in ("snr", "snr_over"):
        needs(context, option, "noise, not --noise none", noise != "none")
    needs(context, "resolution", "files of coordinates", bool(molecules))
    needs(context, "assemblies", "neither files nor --hinge", not molecules and hinge is None)
    writing.refuse_to_replace([out / name for name in subtomogram_files.WRITTEN], overwrite)
    if molecules:
        species = kinds.species_of_files(molecules, resolution)
    else:
        species = kinds.hinged_species() if hinge else kinds.built_in_species(assemblies)
    made = simulator.simulate_subtomograms(settings, species)
    star = subtomogram_files.write_subtomograms(made, out, overwrite)
    facts: dict[str, object] = {"volumes": volumes, "written": [star]}
    lines = [f"wrote {volumes} volumes to {star}"]
    if noise != "none":
        facts["snr_in_box"] = made.signal_variance
        lines.append(f"signal-to-noise ratio inside the box: {made.signal_variance:.4g}")
    if check:
        compared = tilt_series.compare(made, range(min(8, volumes)))
        facts["check"] = asdict(compared)
        lines.append(f"check: {compared}")
    answer(facts, lines, as_json)


@simulate_app.command("tilt-series")
def tilt_series_verb(
    context: typer.Context,
    out: Folder,
    molecules: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PDB]...",
            show_default=False,
            help="PDB or mmCIF files, each a class.  Without one, built-in assemblies.",
        ),
    ] = None,
    assemblies: Annotated[int, typer.Option(help="Number of built-in assemblies.")] = 1,
    resolution: Annotated[
        float, typer.Option(help="Resolution of molecules from files, angstrom.")
    ] = 20.0,
    particles: Annotated[int, typer.Option(help="Number of particles.")] = TiltSettings.n,
    tomograms: Annotated[int, typer.Option(help="Number of tomograms.")] = TiltSettings.tomograms,
    tilts: Annotated[int, typer.Option(help="Images per tilt series.")] = TiltSettings.tilts,
    max_tilt: Annotated[
        float, typer.Option(help="Largest tilt, degrees.")
    ] = TiltSettings.max_tilt_deg,
    dose: Annotated[
        float, typer.Option(help="Electrons per square angstrom per image.")
    ] = TiltSettings.dose,
    box: ImageBox = TiltSettings.box,
    pixel_size: Pixel = TiltSettings.pixel_size,
    snr: Annotated[
        float, typer.Option(help="var(signal) / var(noise) of the images.")
    ] = TiltSettings.snr,
    hand: Annotated[
        int, typer.Option(help="1 or -1: whether depth adds to the defocus (rlnTomoHand).")
    ] = TiltSettings.hand,
    layout: Annotated[
        Layout, typer.Option(help="Program whose file formats are written.")
    ] = "relion5",
    order: Annotated[
        Order, typer.Option(help="Order of the images in the tables.")
    ] = TiltSettings.order,
    premultiplied: Annotated[
        bool, typer.Option("--premultiplied", help="Multiply images by their CTF and dose.")
    ] = False,
    poses: Annotated[
        bool, typer.Option("--poses/--no-poses", help="Write the true poses as RELION's angles.")
    ] = True,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Simulate tilt series with CTF and dose: stacks of tilts, tables, optimisation set.

    The defocus of each image depends on the depth of the particle.  The truth is in separate STAR
    columns (modposeTruthR00...R22, ...ShiftX/Y/Z, ...Class).

    \b
    modpose simulate tilt-series -o demo --assemblies 4 --particles 600
    modpose simulate tilt-series -o warp 1bxn.pdb --layout warptools --premultiplied
    """
    check_resolution("--resolution", resolution)
    needs(context, "resolution", "files of coordinates", bool(molecules))
    needs(context, "assemblies", "no files of coordinates", not molecules)
    writing.refuse_to_replace([out / name for name in tilt_stack_files.WRITTEN], overwrite)
    settings = TiltSettings(
        n=particles,
        tomograms=tomograms,
        tilts=tilts,
        max_tilt_deg=max_tilt,
        dose=dose,
        box=box,
        pixel_size=pixel_size,
        snr=snr,
        hand=hand,
        order=order,
        premultiplied=premultiplied,
        seed=seed,
    )
    species = (
        kinds.species_of_files(molecules, resolution)
        if molecules
        else kinds.built_in_species(assemblies)
    )
    made = tilt_stacks.simulate_tilts(settings, species)
    written = tilt_stack_files.write_tilts(made, out, layout, poses, overwrite)
    line = f"wrote {particles} particles of {tilts} tilts each to {written}"
    answer({"particles": particles, "tilts": tilts, "written": [written]}, [line], as_json)


@simulate_app.command()
def tetrominoes(
    out: Folder,
    volumes: Annotated[int, typer.Option(help="Number of volumes, of all classes.")] = 600,
    classes: Annotated[
        str, typer.Option(metavar="A,B,...", help="I, O, S, T, L, E, or EL, which is held out.")
    ] = "I,O,S,T,L,E",
    box: VolumeBox = 32,
    cube: Annotated[float, typer.Option(help="Side of a cube, voxels.")] = 6.0,
    elongation: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest elongation.")
    ] = (1.0, 1.0),
    orientations: Annotated[
        Orientations,
        typer.Option(help="Uniform, or turns by tens of degrees about x, y and z."),
    ] = "haar",
    max_shift: MaxShift = 0.0,
    tilt_range: TiltRange = (-90.0, 90.0),
    snr: Annotated[
        float | None, typer.Option(help="var(signal) / var(noise); without it, no noise.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw tetrominoes in 3-D, each turned at random: MRC files and a STAR.

    The truth is kept in separate STAR columns (modposeTruthR00...R22, ...ShiftX/Y/Z, ...Class,
    ...Template, ...Elongation).

    \b
    modpose simulate tetrominoes -o known --volumes 600
    modpose simulate tetrominoes -o unseen --volumes 100 --classes EL --seed 1
    modpose simulate tetrominoes -o noisy --snr 0.1 --max-shift 2 --tilt-range -60 60
    """
    settings = SubtomogramSettings(
        n=volumes,
        box=box,
        pixel_size=1.0,
        snr=1.0 if snr is None else snr,
        noise="none" if snr is None else "white",
        tilt_range_deg=tilt_range,
        max_shift_px=max_shift,
        elongation_range=elongation,
        orientations=orientations,
        seed=seed,
    )
    writing.refuse_to_replace([out / name for name in subtomogram_files.WRITTEN], overwrite)
    made = simulator.simulate_subtomograms(
        settings, cubes.tetromino_species(classes.split(","), cube)
    )
    star = subtomogram_files.write_subtomograms(made, out, overwrite)
    answer_written(volumes, "volumes", star, as_json)
