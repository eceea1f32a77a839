"""Analysing the content of a run: cluster, embed, analyze."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

from typing import Annotated, Literal

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import DataDir, Device, Folder, InputAgain, Overwrite, RunFolder, app
from modpose.cli.lazily import lazily
from modpose.cli.whole import whole_run

with lazily():
    from modpose.outputs import analyze as analyses
    from modpose.outputs import columns
    from modpose.outputs import content_maps as sharp_maps

Name = Annotated[str | None, typer.Option(help="Name of the column (of several, its beginning).")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace a column of this name.")]
AnySeed = Annotated[
    int | None, typer.Option(help="Seed of all random numbers; default: that of the fit.")
]


@app.command()
def cluster(
    run: RunFolder,
    k: Annotated[int, typer.Option("--k", help="Number of clusters.")],
    method: Annotated[
        Literal["ward", "kmeans", "gmm", "motion"] | None,
        typer.Option(
            help="Default: ward, above 10,000 images kmeans; gmm is a Gaussian mixture; motion: "
            "classes that share a motion."
        ),
    ] = None,
    name: Name = None,
    seed: AnySeed = None,
    overwrite: Replace = False,
    as_json: Json = False,
) -> None:
    """Cluster the content of RUN after the fit, with any number of clusters.

    Adds the column 'cluster' (or --name) to the run, from 0, the largest cluster first; select,
    export and report use it.

    \b
    modpose cluster run --k 8
    modpose cluster run --k 3 --method gmm --name three
    modpose select run --cluster 0,2 -o good.star
    modpose select run --where 'three == 1' -o good.star
    """
    opened = whole_run(run)
    column = columns.CLUSTER if name is None else name
    sizes = columns.cluster_run(
        opened, k, method=method, name=column, seed=seed, overwrite=overwrite
    )
    line = f"added the column {column}: {', '.join(map(str, sizes))} images"
    answer({"column": column, "sizes": sizes}, [line], as_json)


@app.command()
def embed(
    run: RunFolder,
    method: Annotated[
        Literal["pca", "umap", "tsne"],
        typer.Option(help="umap needs the extra: pip install 'modpose[umap]'."),
    ] = "pca",
    dims: Annotated[int, typer.Option(help="Number of dimensions.")] = 2,
    name: Name = None,
    seed: AnySeed = None,
    overwrite: Replace = False,
    as_json: Json = False,
) -> None:
    """Embed the content of RUN in fewer dimensions: principal components, UMAP or t-SNE.

    Adds the columns 'pca_0', 'pca_1' ... (or --name) to the run; select, export and report use
    them.

    \b
    modpose embed run
    modpose embed run --method tsne
    modpose select run --where 'pca_0 > 1' -o right.star
    """
    opened = whole_run(run)
    added = columns.embed_run(opened, method, dims=dims, name=name, seed=seed, overwrite=overwrite)
    answer({"columns": added}, [f"added the columns {', '.join(added)}"], as_json)


@app.command()
def analyze(
    run: RunFolder,
    out: Folder,
    k: Annotated[
        int | None,
        typer.Option("--k", help="Number of clusters; default: those that RUN has, or 6."),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            metavar="A..B",
            help="Path from image A to image B (positions from 0); default: between two clusters.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Number of maps along the path.")] = 10,
    seed: AnySeed = None,
    maps: Annotated[
        Literal["sharp", "model"] | None,
        typer.Option(
            help="Content and maps; default: sharp ones if RUN has them (modpose volumes makes "
            "them), else those of the model."
        ),
    ] = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    flip_hand: Annotated[
        bool, typer.Option("--flip-hand", help="Mirror the maps: the other handedness.")
    ] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Analyse the content of RUN: free energy, clusters, and a path where images are.

    Writes tables and pictures; for a model of volumes also maps along the path (series.cxc opens
    them as a movie in ChimeraX), a map of each cluster, and a map of the variance.  Adds columns
    to RUN: free_energy, path_position (0 to 1, near the path), path_distance, and cluster.

    \b
    modpose analyze run -o analysis
    modpose analyze run -o analysis --k 4 --path 3..120 --steps 20
    modpose select run --where 'path_position between 0.4 and 0.6' -o middle.star
    modpose select run --where 'free_energy < 6' -o dense.star
    """
    opened = whole_run(run, moved, datadir)
    sharp = None if maps == "model" else sharp_maps.stored_content_maps(opened)
    if maps == "sharp":
        sharp = sharp_maps.content_maps_of(opened, device=device)
    found = analyses.analyze_run(
        opened,
        out,
        k=k,
        path=path,
        steps=steps,
        seed=seed,
        content_maps=sharp,
        flip_hand=flip_hand,
        overwrite=overwrite,
        device=device,
    )
    facts = {
        "clusters": found.clusters.to_dict("records"),
        "path": None if found.path is None else found.stops.to_dict("records"),
        "summary": found.lines,
        "written": [out],
    }
    answer(facts, [*found.lines, f"wrote {out}"], as_json)
