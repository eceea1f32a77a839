"""Every option of the command line is an argument in Python, with the same default."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import modpose.cli
from modpose.cli.arguments import app

BEHIND = {
    "abinitio": "search.abinitio.settings.AbInitioSettings search.abinitio.run.find_maps OPEN",
    "affinity": "affinity.compute.compute_affinity affinity.files.write_affinity METRICS",
    "align": "search.settings.AlignSettings search.classes2d.settings.Classes2dSettings "
    "search.run.align_subtomograms search.classes2d.run.classify_images OPEN",
    "analyze": "outputs.analyze.analyze_run RUN",
    "backproject": "backprojection.halves.open_posed backprojection.files.write_halves "
    "backprojection.halves.reconstruct_halves OPEN",
    "cluster": "outputs.columns.cluster_run",
    "duplicates": "jobs.duplicates.without_duplicates",
    "embed": "outputs.columns.embed_run",
    "encode": "estimator.PoseModel.encode estimator.PoseModel.load OPEN "
    "outputs.export.write_latents",
    "expand": "jobs.symmetry.expanded",
    "explore": "explore.server.explore explore.folder.write_folder RUN",
    "export": "outputs.export.export_run RUN",
    "fit": "fit.fit_run options.configure",
    "fsc": "jobs.resolution.resolution_of_files",
    "hand": "jobs.hand.flip_hand",
    "inspect": "data.inspect.describe",
    "join": "jobs.symmetry.joined",
    "map": "evaluate.placing.place_images OPEN outputs.export.write_latents",
    "pick": "pick.images.pick_images",
    "preprocess": "jobs.prepare.Preparation jobs.prepare.prepare OPEN",
    "recentre": "jobs.positions.recentred",
    "report": "report.build.build_report",
    "resume": "fit.resume_run",
    "score": "evaluate.conformations.score_run RUN",
    "select": "outputs.select.choose outputs.classes.select_classes outputs.selected."
    "export_selection RUN",
    "subtract": "jobs.subtract.subtract OPEN",
    "unbin": "jobs.unbin.unbinned",
    "volumes": "outputs.content_maps.content_maps_of outputs.volumes.write_volumes "
    "outputs.volumes.along_component RUN",
    "simulate alphanumeric": "simulate.settings.CharacterSettings",
    "simulate field": "simulate.settings.HingeSettings simulate.field.simulate_field",
    "simulate particles": "simulate.settings.HingeSettings",
    "simulate projections": "simulate.settings.ProjectionSettings simulate.projection_files."
    "write_projections simulate.conformations.conformers_of_files simulate.projections."
    "simulate_projections",
    "simulate subtomograms": "simulate.subtomogram_settings.SubtomogramSettings",
    "simulate tetrominoes": "simulate.subtomogram_settings.SubtomogramSettings "
    "simulate.tetrominoes.tetromino_species",
    "simulate tilt-series": "simulate.tilt_settings.TiltSettings "
    "simulate.tilt_stack_files.write_tilts",
}
"""The Python functions behind each command; below ``modpose``."""
SHORT = {
    "OPEN": "data.source.open_source",
    "RUN": "run.Run.dataset",
    "METRICS": "affinity.spectra.Fsc affinity.align.AlignedFsc affinity.harmonics.PowerSpectrum "
    "affinity.soap.Soap affinity.differences.MeanDifference",
}
NAMES = {
    "abundance": "abundances",
    "axes": "kind",
    "cone_angle": "cone_deg",
    "config_file": "file",
    "defocus": "defocus_range",
    "false": "false_fraction",
    "grouped": "tilt_series",
    "hinge": "hinge_range_deg",
    "images": "n",
    "mask_diameter": "mask_diameter_px",
    "max_angle": "max_angle_deg",
    "max_tilt": "max_tilt_deg",
    "moved": "input",
    "particles": "n",
    "resolution_wanted": "resolution",
    "rotation_error": "rotation_error_deg",
    "shift": "shift_std_px",
    "shift_error": "shift_error_px",
    "step": "step_deg",
    "tilt_range": "tilt_range_deg",
    "volumes": "n",
}
"""Options that have another name in Python."""
OTHERWISE = {
    "affinity": "source matrix project figure metric",  # read_affinity, write_figure, ...
    "align": "wait",  # Shard.wait_minutes
    "analyze": "maps",  # content_maps
    "backproject": "check",  # check_poses
    "explore": "export",  # write_folder
    "fit": "z_dim classes group epochs seed batch_size lr device precision gamma mask invert "
    "normalize box axes resume",  # configure(flags=...), resume_run
    "fsc": "figure",  # draw_curve
    "preprocess": "flip multiply",  # ctf
    "volumes": "at cluster along path maps",  # at_file, at_clusters, along_component, along_path
    "simulate alphanumeric": "grey",  # binary
    "simulate field": "objects snr",  # n; a field of its own
    "simulate projections": "molecules states",
    "simulate subtomograms": "molecules assemblies resolution check",
    "simulate tilt-series": "molecules assemblies resolution",
    "simulate tetrominoes": "classes elongation volumes box max_shift tilt_range",
}
"""Options that are not one argument of these functions, or have a default of their own."""
OF_EVERY = ("out", "overwrite", "as_json", "devices", "nodes")
"""Files to write, and what only a command has."""


def _commands(typed: Any, before: str = "") -> Iterator[tuple[str, Callable[..., None]]]:
    for info in typed.registered_commands:
        yield before + (info.name or info.callback.__name__.replace("_", "-")), info.callback
    for group in typed.registered_groups:
        yield from _commands(group.typer_instance, f"{group.name} ")


def _found() -> dict[str, Callable[..., None]]:
    for module in pkgutil.iter_modules(modpose.cli.__path__):
        importlib.import_module(f"modpose.cli.{module.name}")
    return dict(_commands(app))


def _function(name: str) -> Callable[..., Any]:
    """Import a function, or a method of a class."""
    parts = name.split(".")
    inner = 2 if parts[-2][0].isupper() else 1
    found = importlib.import_module(".".join(["modpose", *parts[:-inner]]))
    for part in parts[-inner:]:
        found = getattr(found, part)
    return found  # type: ignore[return-value]


def _arguments(command: str) -> dict[str, list[Any]]:
    """Names of arguments, and their defaults in the functions that have them."""
    words = " ".join(SHORT.get(word, word) for word in BEHIND[command].split())
    found: dict[str, list[Any]] = {}
    for word in words.split():
        for name, argument in inspect.signature(_function(word)).parameters.items():
            found.setdefault(name, []).append(argument.default)
    return found


def test_every_command_is_compared() -> None:
    assert set(_found()) == {*BEHIND, "merge", "experiment", "recipes"}


@pytest.mark.parametrize("command", BEHIND)
def test_options_are_arguments_with_the_same_defaults(command: str) -> None:
    arguments = _arguments(command)
    left_out = {*OF_EVERY, *OTHERWISE.get(command, "").split()}
    for option, parameter in inspect.signature(_found()[command]).parameters.items():
        if parameter.default is parameter.empty or option in left_out:
            continue
        names = [name for name in (NAMES.get(option), option) if name in arguments]
        names += [name for name in (f"{option}_px",) if name in arguments and not names]
        assert names, f"{option} is no argument in Python"
        for default in arguments[names[0]]:
            if parameter.default is not None and default is not parameter.empty:
                assert default == parameter.default, option
