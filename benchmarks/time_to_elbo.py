"""How much sooner modpose reaches the validation ELBO that the textbook reaches in ten minutes.

    python -m benchmarks.time_to_elbo --data mnist.npz -o time_to_elbo

Turned and shifted digits, 28x28, two dimensions of content, one thread each.  While they train,
both only put copies of their weights aside; these are judged afterwards, off the clock, on the
same validation images with the same bound: one sample, every pixel, the exact KL to a uniform
angle, a N(0, 1.4 px) shift and N(0, I) content.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import digits, machine, textbook
from benchmarks.step import make_textbook
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.data.source import open_source
from modpose.posterior.gaussian import LOG_2PI, wrapped_entropy
from modpose.progress import Progress
from modpose.recipes import recipe_config, suggest
from modpose.train.loop import Learner, run_epochs, set_up
from modpose.vae import build_vae

RECIPE = "spatial-vae"
FIRST_LOOK_S = 1.0
LOOK_RATIO = 1.2
"""Weights are put aside after a second of training, then at times that grow by this factor."""
JUDGE_BATCH = 25


@dataclass(frozen=True)
class Settings:
    """What both contestants share.

    Attributes
    ----------
    train, val
        Files of (N, 28, 28) images.
    minutes
        Of training, each.
    lr
        Of the textbook; modpose has its recipe's.
    hidden
        Units a layer of both; None leaves each what it has.
    seed
        Of both.
    """

    train: str
    val: str
    minutes: float
    lr: float
    hidden: int | None
    seed: int


class Point(NamedTuple):
    """A learning curve's: seconds of training, images seen, validation ELBO in nats an image.

    ``holds_content`` says that the bound is that of the model with z = 0, as the recipe starts.
    """

    seconds: float
    images: int
    elbo: float
    holds_content: bool = False


class Snapshot(NamedTuple):
    """Weights put aside."""

    seconds: float
    images: int
    weights: dict[str, Tensor]
    holds_content: bool


class Album:
    """Puts weights aside at times that grow geometrically; the time that takes is not counted."""

    def __init__(self, budget: float) -> None:
        self.snapshots: list[Snapshot] = []
        self._due, self._budget = FIRST_LOOK_S, budget
        self._paused, self._start = 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Training time so far."""
        return time.perf_counter() - self._start - self._paused

    def look(self, model: torch.nn.Module, images: int, holds_content: bool = False) -> None:
        """Put the weights aside if it is time to."""
        seconds = self.seconds()
        if seconds < min(self._due, self._budget):
            return
        began = time.perf_counter()
        weights = copy.deepcopy(model.state_dict())
        self.snapshots.append(Snapshot(seconds, images, weights, holds_content))
        while self._due <= seconds:
            self._due *= LOOK_RATIO
        self._paused += time.perf_counter() - began


# --- the textbook -----------------------------------------------------------------------------


def run_textbook(settings: Settings) -> list[Point]:
    """Train the textbook's model and judge it."""
    torch.set_num_threads(1)
    images = torch.from_numpy(np.load(settings.train, allow_pickle=False))
    model = make_textbook(settings.hidden)
    optimizer = textbook.adam(model, settings.lr)
    generator = torch.Generator().manual_seed(settings.seed)
    album = Album(60 * settings.minutes)
    seen = 0
    while album.seconds() < 60 * settings.minutes:
        order = torch.randperm(len(images), generator=generator)
        for few in torch.split(order, textbook.BATCH_SIZE):
            textbook.train_step(model, optimizer, images[few], generator)
            seen += len(few)
            album.look(model, seen)
            if album.seconds() >= 60 * settings.minutes:
                break
    return [
        Point(shot.seconds, shot.images, judge_textbook(model, shot.weights, settings))
        for shot in album.snapshots
    ]


@torch.no_grad()
def judge_textbook(
    model: textbook.SpatialVae, weights: dict[str, Tensor], settings: Settings
) -> float:
    """Mean validation ELBO with the exact KL of the wrapped angle in place of equation 3."""
    model.load_state_dict(weights)
    generator = torch.Generator().manual_seed(0)
    total, images = 0.0, validation(settings)
    for few in torch.split(images, JUDGE_BATCH):
        terms = model.terms(few, model.noise(len(few), generator))
        log_std = model.encode(few)[1][:, model.z_dim]
        exact = terms._replace(kl_angle=LOG_2PI - wrapped_entropy(log_std))
        total += exact.elbo().sum().item()
    return total / len(images)


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
        state = self._learner.state
        self.album.look(self._learner.vae, self._seen, state.step <= state.freed)


def run_modpose(settings: Settings) -> list[Point]:
    """Train the default recipe with modpose's loop and judge it."""
    torch.set_num_threads(1)
    source = open_source(settings.train, kind="images")
    width = {} if settings.hidden is None else {"hidden": settings.hidden}
    model = {"z_dim": 2, "encoder": width, "field": width}
    values = merge(
        merge(recipe_config(RECIPE), suggest(source)[1]),
        {
            "seed": settings.seed,
            "data": {"val_fraction": 0.0},  # judged on images of their own, as the textbook is
            "model": model | {"shift": {"std_px": digits.SHIFT_STD_PX}},
            "train": {"epochs": 1_000_000, "accelerator": "cpu"},
        },
    )
    config = parse_config(values, RECIPE)
    dataset = Dataset(source, config.data, seed=config.seed)
    vae = build_vae(config, shape=dataset.shape, channels=1, n_images=dataset.n)
    learner = set_up(vae, config)
    watch = Watch(learner, 60 * settings.minutes)
    run_epochs(
        learner,
        dataset,
        config,
        epochs=config.train.epochs,
        max_minutes=settings.minutes,
        progress=watch,
        record=lambda _: None,
    )
    return [
        Point(shot.seconds, shot.images, judge_modpose(learner, shot, settings), shot.holds_content)
        for shot in watch.album.snapshots
    ]


@torch.no_grad()
def judge_modpose(learner: Learner, shot: Snapshot, settings: Settings) -> float:
    """Mean validation ELBO; while content is held at zero, of the model without content."""
    learner.vae.load_state_dict(shot.weights)
    learner.vae.eval()
    generator = torch.Generator().manual_seed(0)
    total, images = 0.0, validation(settings)
    for few in torch.split(images, JUDGE_BATCH):
        batch = Batch(torch.arange(len(few)), few.unsqueeze(1))
        elbo = learner.vae(batch, generator=generator, hold_content=shot.holds_content)
        total += elbo.value().sum().item()
    return total / len(images)


# --- both -------------------------------------------------------------------------------------


def validation(settings: Settings) -> Tensor:
    """Return the images that both are judged on, (N, 28, 28)."""
    return torch.from_numpy(np.load(settings.val, allow_pickle=False))


def run_both(settings: Settings, side_by_side: bool) -> dict[str, list[Point]]:
    """Run each contestant in a fresh process, one after the other or together."""
    with ProcessPoolExecutor(
        max_workers=2 if side_by_side else 1,
        mp_context=machine.fresh_processes(),
        max_tasks_per_child=1,
    ) as pool:
        running = {
            "textbook": pool.submit(run_textbook, settings),
            "modpose": pool.submit(run_modpose, settings),
        }
        return {name: future.result() for name, future in running.items()}


def seconds_to_reach(curve: list[Point], elbo: float) -> float:
    """First time at which a curve was seen at ``elbo`` or above; infinite if never."""
    return next((point.seconds for point in curve if point.elbo >= elbo), math.inf)


def summary(curves: dict[str, list[Point]]) -> dict[str, float | None]:
    """Compare the curves: the textbook's best, when each got there, and the ratio.

    Once over modpose's whole curve, once over the part where content is decoded.
    """
    best = max(curves["textbook"], key=lambda point: point.elbo)
    whole = curves["modpose"]
    found: dict[str, float | None] = {
        "textbook_elbo": best.elbo,
        "textbook_seconds": best.seconds,
        "modpose_final_elbo": whole[-1].elbo,
    }
    with_content = [point for point in whole if not point.holds_content]
    for suffix, curve in (("", whole), ("_with_content", with_content)):
        seconds = seconds_to_reach(curve, best.elbo)
        reached = math.isfinite(seconds)
        found[f"modpose_seconds{suffix}"] = seconds if reached else None
        found[f"sooner{suffix}"] = best.seconds / seconds if reached else None
    return found


def sentence(found: dict[str, float | None]) -> str:
    """Say the summary."""
    reached = "modpose did not get there"
    if found["sooner"] is not None:
        reached = (
            f"modpose was there after {found['modpose_seconds']:.1f} s: "
            f"{found['sooner']:.0f}x sooner"
        )
    if found["sooner"] != found["sooner_with_content"] is not None:
        reached += (
            f", content still held at zero; {found['modpose_seconds_with_content']:.1f} s, "
            f"{found['sooner_with_content']:.0f}x sooner, with content decoded"
        )
    return (
        f"The textbook reached a validation ELBO of {found['textbook_elbo']:.1f} nats an image in "
        f"{found['textbook_seconds']:.0f} s; {reached} (it ended at "
        f"{found['modpose_final_elbo']:.1f})."
    )


def draw(curves: dict[str, list[Point]], found: dict[str, float | None], path: Path) -> None:
    """Draw validation ELBO against training time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in (("textbook", "#777777"), ("modpose", "#0b6e99")):
        points = curves[name]
        axes.plot([p.seconds for p in points], [p.elbo for p in points], ".-", color=colour)
        axes.annotate(
            name,
            (points[-1].seconds, points[-1].elbo),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    target, ours = found["textbook_elbo"], found["modpose_seconds"]
    assert target is not None and found["textbook_seconds"] is not None
    held = [point for point in curves["modpose"] if point.holds_content]
    if held:
        axes.plot(
            [p.seconds for p in held], [p.elbo for p in held], "o", mfc="white", color="#0b6e99"
        )
        axes.plot([], [], "o", mfc="white", color="#0b6e99", label="content held at zero")
        axes.legend(frameon=False, loc="lower right")
    if ours is not None:
        axes.annotate(
            "",
            (ours, target),
            (found["textbook_seconds"], target),
            arrowprops={"arrowstyle": "->", "color": "#b3541e"},
        )
        axes.annotate(
            f"{found['sooner']:.0f}x sooner",
            (math.sqrt(ours * found["textbook_seconds"]), target),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color="#b3541e",
        )
    axes.set_xscale("log")
    axes.set_xlabel("training time, s, one thread")
    axes.set_ylabel("validation ELBO, nats an image")
    axes.set_title("Turned and shifted digits, 28x28, two dimensions of content", fontsize=10)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_elbo", description=__doc__)
    parser.add_argument("--data", type=Path, help="mnist.npz; left out, built-in glyphs are used")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    parser.add_argument("--side-by-side", action="store_true", help="both at once, a core each")
    parser.add_argument("--images", type=int, default=60_000, help="to train on, at most")
    parser.add_argument("--validation", type=int, default=500, help="images to judge on")
    parser.add_argument("--lr", type=float, default=textbook.LEARNING_RATE, help="the textbook's")
    parser.add_argument("--hidden", type=int, help="units a layer, of both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("time_to_elbo"), help="a folder")
    options = parser.parse_args(arguments)
    print(machine.sentence(), flush=True)
    train, val = digits.posed_digits(options.data, options.images, options.validation)
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": train, "val": val}
        for name, images in files.items():
            np.save(Path(folder) / f"{name}.npy", images)
        settings = Settings(
            train=str(Path(folder) / "train.npy"),
            val=str(Path(folder) / "val.npy"),
            minutes=options.minutes,
            lr=options.lr,
            hidden=options.hidden,
            seed=options.seed,
        )
        curves = run_both(settings, options.side_by_side)
    found = summary(curves)
    options.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "machine": machine.facts(),
        "settings": {
            "data": "glyphs" if options.data is None else options.data.name,
            "images": len(train),
            "validation": len(val),
            "side_by_side": options.side_by_side,
            **{k: v for k, v in asdict(settings).items() if k not in files},
        },
        "summary": found,
        "curves": {name: [point._asdict() for point in points] for name, points in curves.items()},
    }
    (options.out / "time_to_elbo.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(curves, found, options.out / "time_to_elbo.png")
    print(f"{sentence(found)}\ncurves: {options.out}/time_to_elbo.json and .png")


if __name__ == "__main__":
    main()
