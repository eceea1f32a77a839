"""How much sooner modpose reaches the validation ELBO that the textbook reaches in ten minutes.

    python -m benchmarks.time_to_elbo --system target-vae --data mnist.npz -o time_to_elbo

Rotated and shifted digits, two dimensions of content, one thread each.  While they train, all only
put copies of their weights aside; these are judged afterwards, off the clock, on the same
validation images: one sample of each, every pixel, hard cells, the KL that makes it a bound.  The
clock counts processor time, so that what else the machine does hardly matters.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks import digits, machine, textbook
from benchmarks.curves import TEXTBOOK, Point, draw, sentences, summary
from benchmarks.systems import (
    SPATIAL,
    SYSTEMS,
    Size,
    System,
    as_batch,
    recipe_options,
)
from modpose.config import Config, merge, parse_config
from modpose.data.dataset import Dataset
from modpose.data.source import open_source
from modpose.model.build import build_vae
from modpose.model.objective import Estimate
from modpose.progress import Progress
from modpose.suggest import suggest
from modpose.train.learner import Learner, set_up
from modpose.train.loop import run_epochs

FIRST_LOOK_S = 1.0
LOOK_RATIO = 1.2
"""Weights are put aside after a second of training, then at times that grow by this factor."""
JUDGE_BATCH = 25
PROCESSOR_CLOCK = SimpleNamespace(perf_counter=time.process_time)
"""What modpose's loop reads its time from, in place of the wall's clock."""


@dataclass(frozen=True)
class Settings:
    """What all contestants share.

    Attributes
    ----------
    system
        Name of the published system.
    train, val
        Files of (N, box, box) images.
    minutes, recipe_minutes
        Of training: the textbook's, and that of each of modpose's recipes.
    lr, batch_size
        Of the textbook; modpose's recipes have their own.
    hidden
        Units a layer of all; None leaves each what it has.
    seed
        Of all.
    """

    system: str
    train: str
    val: str
    minutes: float
    recipe_minutes: float
    lr: float
    batch_size: int
    hidden: int | None
    seed: int


@dataclass(frozen=True)
class Snapshot:
    """Weights put aside."""

    seconds: float
    images: int
    weights: dict[str, Tensor]
    holds_content: bool

    def judged(self, elbo: float) -> Point:
        """Return the point of the learning curve."""
        return Point(self.seconds, self.images, elbo, self.holds_content)


class Album:
    """Puts weights aside at times that grow geometrically; the time that takes is not counted."""

    def __init__(self, budget: float) -> None:
        self.snapshots: list[Snapshot] = []
        self._due, self._budget = FIRST_LOOK_S, budget
        self._paused, self._start = 0.0, time.process_time()

    def seconds(self) -> float:
        """Processor time of training so far."""
        return time.process_time() - self._start - self._paused

    def look(
        self,
        model: torch.nn.Module,
        images: int,
        *,
        holds_content: bool = False,
        last: bool = False,
    ) -> None:
        """Put the weights aside if it is time to, or if they are the last."""
        seconds = self.seconds()
        if seconds < min(self._due, self._budget) and not last:
            return
        if self.snapshots and self.snapshots[-1].images == images:
            return
        began = time.process_time()
        weights = copy.deepcopy(model.state_dict())
        self.snapshots.append(Snapshot(seconds, images, weights, holds_content))
        while self._due <= seconds:
            self._due *= LOOK_RATIO
        self._paused += time.process_time() - began


# --- the textbook -----------------------------------------------------------------------------


def run_textbook(settings: Settings) -> list[Point]:
    """Train the textbook's model and judge it."""
    torch.set_num_threads(1)
    system = SYSTEMS[settings.system]
    images = torch.from_numpy(np.load(settings.train, allow_pickle=False))
    model = system.make_textbook(settings.hidden)
    optimizer = textbook.adam(model, settings.lr)
    generator = torch.Generator().manual_seed(settings.seed)
    budget = 60 * settings.minutes
    album, seen = Album(budget), 0
    while album.seconds() < budget:
        order = torch.randperm(len(images), generator=generator)
        for few in torch.split(order, settings.batch_size):
            textbook.train_step(model, optimizer, images[few], generator)
            seen += len(few)
            album.look(model, seen)
            if album.seconds() >= budget:
                break
    return [shot.judged(judge_textbook(model, shot, settings)) for shot in album.snapshots]


@torch.no_grad()
def judge_textbook(model: textbook.Textbook, shot: Snapshot, settings: Settings) -> float:
    """Mean validation ELBO, a bound."""
    system = SYSTEMS[settings.system]
    model.load_state_dict(shot.weights)
    generator = torch.Generator().manual_seed(0)
    images = validation(settings)
    bounds = [system.bound(model, few, generator) for few in torch.split(images, JUDGE_BATCH)]
    return torch.cat(bounds).mean().item()


# --- modpose ----------------------------------------------------------------------------------


class Watch(Progress):
    """Looks at the weights after every step of modpose's own training loop."""

    def __init__(self, learner: Learner, budget: float) -> None:
        super().__init__("fit", 0, quiet=True)
        self.album = Album(budget)
        self._learner, self._seen = learner, 0

    def advance(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._seen += images
        self._look(last=False)

    def close(self) -> None:
        """Put the final weights aside."""
        self._look(last=True)

    def _look(self, *, last: bool) -> None:
        state = self._learner.state
        self.album.look(
            self._learner.vae, self._seen, holds_content=state.step <= state.freed, last=last
        )


def run_modpose(recipe: str, settings: Settings) -> list[Point]:
    """Train a recipe with modpose's loop and judge it."""
    torch.set_num_threads(1)
    source = open_source(settings.train, kind="images")
    config = fit_config(recipe, suggest(source)[1], settings)
    dataset = Dataset(source, config.data, seed=config.seed)
    vae = build_vae(config, shape=dataset.shape, channels=1, n_images=dataset.n)
    learner = set_up(vae, config)
    watch = Watch(learner, 60 * settings.recipe_minutes)
    with mock.patch("modpose.train.loop.time", PROCESSOR_CLOCK):
        run_epochs(
            learner,
            dataset,
            config,
            epochs=config.train.epochs,
            max_minutes=settings.recipe_minutes,
            progress=watch,
            record=lambda _: None,
        )
    watch.close()
    return [shot.judged(judge_modpose(learner, shot, settings)) for shot in watch.album.snapshots]


def fit_config(recipe: str, of_data: dict[str, object], settings: Settings) -> Config:
    """Return the configuration that a recipe trains with: as a user's, for the given time."""
    values = recipe_options(SYSTEMS[settings.system], recipe, Size(hidden=settings.hidden))
    values = merge(
        merge(values, of_data),
        {
            "seed": settings.seed,
            "data": {"val_fraction": 0.0},  # judged on images of their own, as the textbook is
            "train": {"epochs": 1_000_000},
        },
    )
    return parse_config(values, recipe)


@torch.no_grad()
def judge_modpose(learner: Learner, shot: Snapshot, settings: Settings) -> float:
    """Mean validation ELBO; while content is held at zero, of the model without content."""
    learner.vae.load_state_dict(shot.weights)
    learner.vae.eval()
    generator = torch.Generator().manual_seed(0)
    images = validation(settings)
    bounds = [
        learner.vae(
            as_batch(few), generator=generator, how=Estimate(hold_content=shot.holds_content)
        ).value()
        for few in torch.split(images, JUDGE_BATCH)
    ]
    return torch.cat(bounds).mean().item()


# --- all --------------------------------------------------------------------------------------


def validation(settings: Settings) -> Tensor:
    """Return the images that all are judged on, (N, box, box)."""
    return torch.from_numpy(np.load(settings.val, allow_pickle=False))


def run_all(settings: Settings, recipes: tuple[str, ...], at_once: int) -> dict[str, list[Point]]:
    """Run each contestant in a fresh process, so many at a time."""
    with ProcessPoolExecutor(
        max_workers=at_once,
        mp_context=machine.fresh_processes(),
        max_tasks_per_child=1,
    ) as pool:
        running = {TEXTBOOK: pool.submit(run_textbook, settings)}
        running |= {name: pool.submit(run_modpose, name, settings) for name in recipes}
        return {name: future.result() for name, future in running.items()}


def main(arguments: list[str] | None = None) -> None:
    options = _parse(arguments)
    system: System = SYSTEMS[options.system]
    print(machine.sentence(), flush=True)
    train, val = digits.posed_digits(
        options.data, options.images, options.validation, posing=system.posing
    )
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": train, "val": val}
        for name, images in files.items():
            np.save(Path(folder) / f"{name}.npy", images)
        settings = Settings(
            system=system.name,
            train=str(Path(folder) / "train.npy"),
            val=str(Path(folder) / "val.npy"),
            minutes=options.minutes,
            recipe_minutes=options.recipe_minutes or options.minutes,
            lr=system.lr if options.lr is None else options.lr,
            batch_size=options.batch_size or system.batch_size,
            hidden=options.hidden,
            seed=options.seed,
        )
        recipes = tuple(options.recipe or system.recipes)
        curves = run_all(settings, recipes, at_once=2 if options.side_by_side else 1)
    found = summary(curves)
    options.out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine.facts(),
        "settings": {
            "data": "glyphs" if options.data is None else options.data.name,
            "images": len(train),
            "validation": len(val),
            "side_by_side": options.side_by_side,
            **{k: v for k, v in asdict(settings).items() if k not in files},
        },
        "summary": found.as_dict(),
        "curves": {name: [point._asdict() for point in points] for name, points in curves.items()},
    }
    (options.out / "time_to_elbo.json").write_text(json.dumps(record, indent=1) + "\n")
    box = system.posing.box
    title = f"Rotated and shifted digits, {box}x{box}, two dimensions of content"
    draw(curves, found, title, options.out / "time_to_elbo.png")
    print(f"{sentences(found)}\ncurves: {options.out}/time_to_elbo.json and .png")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_elbo", description=__doc__)
    parser.add_argument("--system", choices=SYSTEMS, default=SPATIAL.name)
    parser.add_argument("--recipe", action="append", help="may be repeated; default: all of them")
    parser.add_argument("--data", type=Path, help="mnist.npz; left out, built-in glyphs are used")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    parser.add_argument("--recipe-minutes", type=float, help="of training, for modpose's recipes")
    parser.add_argument("--side-by-side", action="store_true", help="two at once, a core each")
    parser.add_argument("--images", type=int, default=60_000, help="to train on, at most")
    parser.add_argument("--validation", type=int, default=500, help="images to judge on")
    parser.add_argument("--lr", type=float, help="the textbook's; default: as published")
    parser.add_argument("--batch-size", type=int, help="the textbook's; default: as published")
    parser.add_argument("--hidden", type=int, help="units per layer, of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("time_to_elbo"), help="a folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
