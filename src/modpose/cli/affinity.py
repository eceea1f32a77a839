"""Similarities of objects: affinity."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import DataDir, Index, Input, Overwrite, Partial, app, needs
from modpose.cli.lazily import lazily
from modpose.errors import InputError

with lazily():
    from modpose import affinity as affinities
    from modpose.affinity import figure as heat_map
    from modpose.files import writing

if TYPE_CHECKING:
    from modpose.affinity import Affinity, Metric


@app.command()
def affinity(
    context: typer.Context,
    source: Input = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="CSV", help="affinity.csv to write.")
    ] = None,
    metric: Annotated[
        Literal[
            "fsc",
            "aligned-fsc",
            "power-spectrum",
            "soap",
            "mean-difference",
            "mean-absolute-difference",
        ],
        typer.Option(help="Measure of similarity."),
    ] = "fsc",
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE", help="Class of each image; default: one class per image."
        ),
    ] = None,
    kmax: Annotated[
        int | None, typer.Option(help="fsc, aligned-fsc: highest shell, cycles per box.")
    ] = None,
    step: Annotated[
        float | None, typer.Option(help="aligned-fsc: step of the rotations, degrees.")
    ] = None,
    max_shift: Annotated[
        float | None, typer.Option(help="aligned-fsc: largest shift along an axis, pixels.")
    ] = None,
    lmax: Annotated[
        int | None, typer.Option(help="power-spectrum, soap: highest harmonic degree.")
    ] = None,
    centre: Annotated[
        Literal["box", "mass"] | None, typer.Option(help="power-spectrum: origin of the radii.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="soap: pixels above are foreground; default: Otsu's.")
    ] = None,
    zeta: Annotated[
        float | None, typer.Option(help="power-spectrum, soap: power of the cosine.")
    ] = None,
    raw: Annotated[
        bool | None,
        typer.Option("--raw", help="mean differences: write these, not 1 - |difference|/largest."),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Check, convert or draw this matrix; no INPUT."),
    ] = None,
    project: Annotated[
        bool,
        typer.Option("--project", help="Write the nearest positive semi-definite matrix."),
    ] = False,
    layout: Annotated[
        Literal["named", "header"],
        typer.Option(help="Names on both sides, or in the first line only (as in affinity-VAE)."),
    ] = "named",
    figure: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw a heat map with dendrogram.")
    ] = None,
    kind: Annotated[
        Literal["auto", "images", "volumes"], typer.Option(help="Content of INPUT.")
    ] = "auto",
    datadir: DataDir = None,
    index: Index = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compute a matrix of similarities of known objects, for training a latent space.

    fsc compares templates without alignment (2-D: ring correlation); aligned-fsc searches the best
    rotation and shift for every pair; power-spectrum and soap do not depend on the rotation.

    \b
    modpose affinity templates.npy -o affinity.csv --kmax 12 --figure affinity.png
    modpose affinity volumes/ --kind volumes --labels classes.txt --metric power-spectrum -o a.csv
    modpose affinity --matrix affinity.csv --project -o projected.csv
    """
    settings: dict[str, object] = {
        "kmax": kmax,
        "step_deg": step,
        "max_shift": max_shift,
        "lmax": lmax,
        "centre": centre,
        "threshold": threshold,
        "zeta": zeta,
        "raw": raw,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    _check_arguments(source, matrix, out, given, project or figure is not None)
    for option in OF_INPUT:
        needs(context, option, "INPUT", matrix is None)

    outputs = [path for path in (out, figure) if path is not None]
    given_files = [Path(name) for name in (source, matrix, labels, index) if name is not None]
    writing.check_outputs(outputs, overwrite, given_files)

    if matrix is not None:
        found = affinities.read_affinity(matrix)
    else:
        assert source is not None
        chosen = _metric(metric, given)
        found = affinities.compute_affinity(
            source,
            chosen,
            labels=labels,
            kind=kind,
            datadir=datadir,
            index=index,
            partial=partial,
        )
    if raw:
        lines = [f"differences of {len(found.names)} x {len(found.names)}, not an affinity"]
    else:
        lines = [f"affinity of {found.summary()}"]
    if project:
        found, line = _projected(found)
        lines.append(line)
    with writing.all_or_nothing() as place:
        if out is not None:
            affinities.write_affinity(found, place(out), layout)
        if figure is not None:
            heat_map.write_figure(found, place(figure))
    facts: dict[str, object] = {"names": found.names} if raw else found.facts()
    lines += [f"wrote {path}" for path in outputs]
    answer(facts | {"written": outputs}, lines, as_json)


def _check_arguments(
    source: str | None,
    matrix: Path | None,
    out: Path | None,
    given: dict[str, object],
    affinity_needed: bool,
) -> None:
    """Refuse contradictory options before anything is read."""
    if (source is None) == (matrix is None):
        found = "missing" if source is None else "given beside --matrix"
        raise InputError(f"affinity: INPUT is {found}, expected one of INPUT and --matrix")
    if matrix is None and out is None:
        expected = "modpose affinity INPUT -o affinity.csv"
        raise InputError(f"affinity: -o CSV is missing, expected {expected}")
    if matrix is not None and given:
        name = FLAGS[next(iter(given))]
        raise InputError.of("--matrix", name, "given too", "settings of a metric only with INPUT")
    if given.get("raw") and affinity_needed:
        raise InputError("--raw: given with --project or --figure, expected it without")


OF_INPUT = ("metric", "labels", "kind", "datadir", "index", "partial")
"""Options that say how INPUT is read and compared."""
FLAGS = {
    "kmax": "--kmax",
    "step_deg": "--step",
    "max_shift": "--max-shift",
    "lmax": "--lmax",
    "centre": "--centre",
    "threshold": "--threshold",
    "zeta": "--zeta",
    "raw": "--raw",
}
"""A setting of a metric and its command-line option."""


def _metric(name: str, given: dict[str, object]) -> Metric:
    """Make the metric with its settings; refuse settings that it does not have."""
    kind: Any = affinities.METRICS[name]
    has = {field.name for field in fields(kind)}
    for setting in given:
        if setting not in has:
            mine = ", ".join(FLAGS[one] for one in FLAGS if one in has)
            expected = f"only {mine} with --metric {name}"
            raise InputError.of("affinity", FLAGS[setting], "given", expected)
    made: Metric = kind(**given)
    return made


def _projected(found: Affinity) -> tuple[Affinity, str]:
    """Project; returns also the largest change in words."""
    if found.is_positive():
        return found, "not projected: it is positive semi-definite already"
    nearest = found.projected()
    change = float(abs(nearest.values - found.values).max())
    words = f"projected to the nearest positive semi-definite: entries change by up to {change:.3g}"
    return nearest, words
