"""What the studies share: fits that follow a matrix, and where they place what they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.affinity import METRICS, Affinity, compute_affinity, write_affinity
from modpose.errors import InputError
from modpose.evaluate.latent_map import SOFT_K, Distance, LatentMap, novelty_auc
from modpose.infer.latents import content_of_table
from studies.affinity.budgets import Model, Plan, Sizes, configured
from studies.affinity.classification import Confusion
from studies.common import study
from studies.common.samples import Sample
from studies.common.study import Fit, Options, Result

if TYPE_CHECKING:
    import pandas as pd

Setting = study.Setting[Plan]
"""What an experiment was requested."""
Floats = NDArray[np.float64]
NAME, SEEN = "name", "seen"
"""Columns of the truth: the class, and 1 where fits know it."""


# --- fits -------------------------------------------------------------------------------------


def class_matrix(
    setting: Setting, data: str, metric: str, templates: NDArray[np.float32], names: Sequence[str]
) -> Path:
    """Compute how alike upright templates are, once; return the CSV."""
    path = setting.samples / f"{data}-{metric}.csv"
    if not path.is_file():
        found = compute_affinity(templates, METRICS[metric]())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_affinity(Affinity(found.values, tuple(names)), path)
    return path


def metric_of_characters() -> tuple[str, str]:
    """Return the metric for characters, and what to call it on the page.

    It is SOAP, as in the paper; where the package that SOAP needs is not installed, the power
    spectrum takes its place, and is named.
    """
    try:
        METRICS["soap"]().describe(torch.eye(8)[None])
    except InputError:
        return "power-spectrum", "power spectrum"
    return "soap", "SOAP"


def make_fit(
    setting: Setting,
    sizes: Sizes,
    sample: Sample,
    model: Model,
    matrix: Path | None,
    more: Options,
    seed: int = 0,
) -> Fit:
    """Lay out one fit; ``matrix`` is what it follows, ``seed`` counts on from the experiment's."""
    follows = model.gamma != 0
    return Fit(
        name=f"{sample.name}-{model.slug}-seed{seed}",
        sample=sample,
        recipe=model.recipe,
        options=configured(setting.plan, sizes, model, more),
        seed=setting.seed + seed,
        max_minutes=sizes.minutes,
        importance=sizes.importance,
        labels=NAME if follows else None,
        affinity=matrix if follows else None,
    )


# --- what a fit found -------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Known samples on their map, and where the fit places those it never saw.

    Attributes
    ----------
    known
        The map of the samples that were fitted.
    z
        (M, d) contents of the held-out samples.
    truth
        The truth, one row per sample: ``name``, ``seen`` and more.
    channel
        (M, p) their pose channel; None if there is none.
    """

    known: LatentMap
    z: Floats
    truth: pd.DataFrame
    channel: Floats | None = None

    @classmethod
    def by_search(cls, result: Result) -> Found:
        """Place the held-out samples by a search of all poses, in place of the encoder."""
        model = result.model()
        model.quiet = True
        encoded = model.encode(result.fit.sample.open_test(), search=True)
        return cls._of(result, encoded.to_dataframe())

    @classmethod
    def of(cls, result: Result) -> Found:
        """Read what a fit left."""
        return cls._of(result, result.held_out())

    @classmethod
    def _of(cls, result: Result, held_out: pd.DataFrame) -> Found:
        table = result.run.latents()
        labels = result.fit.sample.truth_of_train()[NAME].astype(str).to_numpy()
        fitted = (table["split"] == "train").to_numpy()
        distance: Distance = "euclidean" if result.fit.affinity is None else "cosine"
        known = LatentMap.of(content_of_table(table)[fitted], labels[fitted], distance)
        channel = _pose_channel(held_out)
        truth = result.fit.sample.truth_of_test()
        truth[NAME] = truth[NAME].astype(str)
        return cls(known, content_of_table(held_out), truth, channel if channel.size else None)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which held-out samples are of classes that the fit knows."""
        return self.truth[SEEN].to_numpy(bool)

    @property
    def names(self) -> NDArray[np.str_]:
        """Classes of the held-out samples."""
        return self.truth[NAME].to_numpy(str)

    def confusion(self, way: str = "nearest") -> Confusion:
        """Compare held-out samples with their classes, those that the fit never saw as well.

        Parameters
        ----------
        way
            ``nearest`` (five neighbours) or ``within`` (two standard deviations).
        """
        index = self.known.nearest(self.z) if way == "nearest" else self.known.within(self.z)
        predicted = np.array([*self.known.names, ""])[index]
        return Confusion.of(self.names, predicted, self.known.names)

    def accuracy(self) -> float:
        """Fraction of the held-out samples of known classes whose five neighbours agree."""
        index = self.known.nearest(self.z[self.seen])
        return float(np.mean(np.array(self.known.names)[index] == self.names[self.seen]))

    def new_auc(self) -> float | None:
        """Area under the ROC curve of telling unseen classes from seen ones; None without any."""
        if self.seen.all():
            return None
        scores = self.known.novelty(self.z)
        return novelty_auc(scores[self.seen], scores[~self.seen])

    def whole(self) -> LatentMap:
        """Return the map with the unseen classes in it, and Euclidean distances as in the paper."""
        unseen = ~self.seen
        plain = replace(self.known, distance="euclidean")
        return plain.together(self.z[unseen], self.names[unseen])

    def row(self) -> dict[str, Any]:
        """Return the columns of a table that every fit has."""
        known = self.seen
        within = self.known.within(self.z[known])
        names = np.array([*self.known.names, ""])
        own = self.known.fractions(self.z[known], min(SOFT_K, len(self.known.z) // 4))
        column = {name: j for j, name in enumerate(self.known.names)}
        mine = [column[name] for name in self.names[known]]
        return {
            "kNN 5": self.accuracy(),
            "own share of 100": float(own[np.arange(len(own)), mine].mean()),
            "within 2σ": float(np.mean(names[within] == self.names[known])),
            "macro F1": Confusion.of(
                self.names[known], names[self.known.nearest(self.z[known])]
            ).macro_f1,
            "new class, AUC": self.new_auc(),
        }


DIGITS = dict.fromkeys(
    ("kNN 5", "own share of 100", "within 2σ", "macro F1", "new class, AUC", "s.d."), 3
)
"""Decimals of the columns of :meth:`Found.row`."""
NOTE = (
    "kNN 5: held-out samples of known classes whose five nearest fitted samples agree by majority. "
    "Own share of 100: mean part of their class among the 100 nearest (a quarter of all where "
    "there are fewer than 400). Neighbours are the nearest by the angle where a fit follows an "
    "affinity, which is a cosine, and by the Euclidean distance elsewhere. Within 2σ: those "
    "within two standard deviations of their class's mean on every axis, and of no nearer one. "
    "New class: area under the ROC curve of the distance to the five nearest, over what is usual "
    "there, for unseen against seen classes."
)


def _pose_channel(table: pd.DataFrame) -> Floats:
    """Return pose_0, pose_1, ... as (N, p)."""
    count = sum(str(name).removeprefix("pose_").isdigit() for name in table.columns)
    return table[[f"pose_{k}" for k in range(count)]].to_numpy(np.float64)


def found_all(fits: Mapping[Model, Fit], results: Mapping[str, Result]) -> dict[Model, Found]:
    """Read what each model of a study found."""
    return {model: Found.of(results[fit.name]) for model, fit in fits.items()}
