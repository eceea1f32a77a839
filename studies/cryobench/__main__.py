r"""Sharp maps on the sets of CryoBench, beside other recipes and installed peers.

    python -m studies.cryobench igg-1d --structures PDBS -o OUT --seeds 0,1,2
    python -m studies.cryobench igg-1d --structures PDBS -o OUT \
        --contenders ours,cryodrgn,recovar --cryodrgn-python ENV1/bin/python \
        --recovar-python ENV2/bin/python

Every contender gets the same files.  What is finished is kept, and not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks import machine
from modpose.backprojection.halves import open_posed
from modpose.data.source import open_source
from modpose.errors import InputError
from studies.cryobench import ours, peers
from studies.cryobench.measure import Cost, once
from studies.cryobench.score import Draw, Judge, Limits, limits, resembles
from studies.cryobench.sets import SETS, prepare

CONTENDERS = (*ours.RECIPES, *peers.PEERS)
HEADER = "| seed | contender | area | worst | gain | first shells | processor s | clock s | GB |"


def fit_options(options: argparse.Namespace) -> list[str]:
    """Return the options of ``modpose fit`` that are given."""
    given = {
        "--max-minutes": options.minutes,
        "--precision": options.precision,
        "--z-dim": options.z_dim,
    }
    return [text for k, v in given.items() if v is not None for text in (k, str(v))]


def settle(name: str, star: Path, folder: Path, seed: int, options: argparse.Namespace) -> Cost:
    """Run a contender, unless it has finished."""

    def work() -> Cost:
        if name in ours.RECIPES:
            return ours.fit(name, star, folder, seed, fit_options(options))
        return peers.fit(name, peers.python_of(name, options), star, folder, seed, options.epochs)

    return once(folder / "cost.json", work)


def row(name: str, judge: Judge, reach: Limits, draw: Draw, cost: Cost) -> str:
    """Score a contender: one row of the table, without the seed."""
    maps = list(draw(judge.rows))
    areas = judge.areas(maps)
    score = [f"{areas.mean:.4f}", f"{areas.each.min():.4f}", f"{reach.gain(areas.mean):.2f}"]
    if not resembles(areas):
        large = peers.stretched(judge, maps[0])
        print(f"{name}: maps do not resemble the truth (its mean, twice as large: {large:.2f})")
        score = ["does not resemble the truth", "", ""]
    spent = [f"{cost.processor_s:.0f}", f"{cost.clock_s:.0f}", f"{cost.memory_gb:.1f}"]
    return "| " + " | ".join([name, *score, f"{areas.low:.3f}", *spent]) + " |"


def drawing(name: str, folder: Path, options: argparse.Namespace) -> Draw:
    """Return what draws a contender's maps."""
    if name in ours.RECIPES:
        return ours.drawing(name, folder)
    return peers.drawing(name, peers.python_of(name, options), folder)


def reached(judge: Judge, star: Path, folder: Path) -> Limits:
    """Compute what the images allow, in the mask of ours."""
    dataset = open_posed(open_source(str(star)))
    found = limits(judge, dataset, ours.mask_of(folder))
    for title, areas in (
        ("consensus", found.consensus),
        (f"states known, our solver, {found.functions} functions", found.known),
        (f"states known, {found.neighbours} nearest averaged", found.kernel),
    ):
        print(f"{title}: area {areas.mean:.4f}, worst {areas.each.min():.4f}", flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the contenders on one set and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.cryobench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--structures", type=Path, required=True, help="folder of PDB files")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", default="0", help="as 0,1,2; of images and of fits")
    parser.add_argument("--contenders", default="ours", help=f"some of {','.join(CONTENDERS)}")
    parser.add_argument("--minutes", type=float, help="of training, of each recipe of ours")
    parser.add_argument("--z-dim", type=int, help="dimensions of content, of each recipe of ours")
    parser.add_argument("--precision", help="of training, of each recipe of ours: bf16-mixed")
    parser.add_argument("--epochs", type=int, default=20, help="of cryodrgn")
    for peer in peers.PEERS:
        parser.add_argument(
            f"--{peer}-python", type=Path, help=f"Python of its environment: {peer}"
        )
    options = parser.parse_args(arguments)
    names = options.contenders.split(",")
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        parser.error(f"--contenders: {unknown[0]}, expected some of {', '.join(CONTENDERS)}")
    torch.set_num_threads(1)
    print(machine.sentence(1), flush=True)
    try:
        compare(options, ["ours", *(name for name in names if name != "ours")])
    except InputError as error:
        sys.exit(f"cryobench: {error}")


def compare(options: argparse.Namespace, names: list[str]) -> None:
    """Print the table of one set."""
    rows = [HEADER, "|---|" + "---:|" * (HEADER.count("|") - 2)]
    for seed in map(int, options.seeds.split(",")):
        folder = options.out / f"{options.set}-{seed}"
        star = prepare(options.set, options.structures, folder / "set", options.images, seed)
        truth = open_source(str(star)).particles.truth()
        assert truth is not None
        judge = Judge(star.parent, truth["class"].to_numpy(int))
        costs = {name: settle(name, star, folder / name, seed, options) for name in names}
        reach = reached(judge, star, folder / "ours")
        known = judge.areas(ours.averaged(folder / "ours", judge.state)(judge.rows))
        averaged = f"area {known.mean:.4f}, gain {reach.gain(known.mean):.2f}"
        print(f"ours at the mean content of each true state: {averaged}", flush=True)
        for name, cost in costs.items():
            draw = drawing(name, folder / name, options)
            rows.append(f"| {seed} " + row(name, judge, reach, draw, cost))
            print(rows[-1], flush=True)
    print("\n".join(["", *rows]))


if __name__ == "__main__":
    main()
