"""Images that are partly or nearly constant, and images that are repeated."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from modpose.alarms.sample import BYTES, COMMON_VALUE, Integers, Sample
from modpose.data.dataset import Dataset
from modpose.data.identity import identities_of
from modpose.data.repeated_rows import repeated_rows_sentence
from modpose.run.alarm import Alarm

FAINT = 1e-3
"""An image with a standard deviation below this fraction of the median's counts as empty."""
PADDED = 0.25
"""A noisy image with one value in more than this fraction of the pixels was padded."""
FEW_LEVELS = 16
"""Drawings with at most this many grey levels repeat by chance."""
SAME_DISTANCE = 0.5
"""Fraction of the copies at one distance from their originals that is not chance."""
OFTEN = 10
"""Number of copies of one picture that counts as too many."""


def constant_alarm(sample: Sample) -> Alarm | None:
    """Check whether images are nearly constant, or padded with one value."""
    faint = sample.spread < FAINT * float(np.median(sample.spread))
    count, of = int(faint.sum()), len(sample.rows)
    if count:
        where = sample.dataset.source.stack.where(int(sample.rows[np.flatnonzero(faint)[0]]))
        return Alarm(
            "constant",
            f"{count} of {of} checked images are nearly constant (the first is "
            f"{where}). Leave them out (--index).",
        )
    padded = sample.common > PADDED
    if float(np.median(sample.common)) < COMMON_VALUE and padded.any():
        return Alarm(
            "constant",
            f"{int(padded.sum())} of {len(padded)} checked images are padded with one value over "
            "more than a quarter of the box, as at the edge of a micrograph. Leave them out "
            "(--index), or extract them again.",
        )
    return None


def repeated_rows_alarm(sample: Sample) -> Alarm | None:
    """Check whether rows of the table name the image of another row at the same pose."""
    source = sample.dataset.source
    sentence = repeated_rows_sentence(source.particles, source.pixel_size)
    return None if sentence is None else Alarm("repeated", f"In the table, {sentence}")


def repeated_alarm(sample: Sample) -> Alarm | None:
    """Check whether images are exact copies of others with another name in the table.

    A symmetry-expanded set names an image several times, which is not an error.  Drawings
    without noise repeat by chance if they have few grey levels, or show one object in one pose;
    such copies count only if they follow an order.
    """
    dataset = sample.dataset
    rows = _rows_looked_at(dataset)
    copies, originals, most = _copies(dataset, rows, _names(dataset, drawn=_is_drawn(sample)))
    if not len(copies) or not _is_fault(sample, copies, originals, most, len(rows)):
        return None
    where = dataset.source.stack.where
    return Alarm(
        "repeated",
        f"{len(copies)} of {len(rows)} checked images are exact copies of another "
        f"(the first is {where(int(copies[0]))}, a copy of image {int(originals[0]) + 1}). Copies "
        "count as independent images and spoil validation; leave them out (--index).",
    )


def _is_fault(
    sample: Sample, copies: Integers, originals: Integers, most: int, looked_at: int
) -> bool:
    if not _is_drawn(sample):
        return True  # noise does not repeat
    if len(np.unique(sample.dataset.source.stack.read(sample.rows[:8]))) > FEW_LEVELS:
        return len(copies) >= max(2, 0.01 * looked_at)
    distances = Counter((copies - originals).tolist())
    common = distances.most_common(1)[0][1]
    in_order = len(copies) >= max(OFTEN, 0.01 * looked_at) and common > SAME_DISTANCE * len(copies)
    return in_order or most > max(OFTEN, 0.2 * looked_at)


def _is_drawn(sample: Sample) -> bool:
    """Whether large parts of the images have one value, as in drawings but not in noise."""
    return float(np.median(sample.common)) > COMMON_VALUE


def _rows_looked_at(dataset: Dataset) -> Integers:
    """Return all rows of a set in memory; else pairs half the set apart, and neighbours."""
    n = dataset.n
    if dataset.cached:
        return np.arange(n)
    size = 4 * int(np.prod(dataset.source.stack.shape))
    few = np.linspace(0, n // 2 - 1, max(1, min(n // 4, 250, BYTES // size // 4))).astype(np.int64)
    return np.unique(
        np.concatenate([few, few + 1, few + n // 2, np.minimum(few + n // 2 + 1, n - 1)])
    )


def _copies(
    dataset: Dataset, rows: Integers, names: Sequence[Hashable] | None
) -> tuple[Integers, Integers, int]:
    """Find exact copies with another name: their rows, those of the originals, largest count."""
    seen: dict[bytes, list[int]] = defaultdict(list)
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        for row, image in zip(part, dataset.batch(part).image.numpy(), strict=True):
            seen[hashlib.blake2b(image.tobytes(), digest_size=12).digest()].append(int(row))
    copies, originals, most = [], [], 1
    for group in seen.values():
        if len(group) == 1:
            continue
        if names is not None:  # one image per name
            group = list({names[row]: row for row in reversed(group)}.values())[::-1]
        most = max(most, len(group))
        for before, after in pairwise(sorted(group)):
            originals.append(before)
            copies.append(after)
    order = np.argsort(copies, kind="stable")
    return np.array(copies, np.int64)[order], np.array(originals, np.int64)[order], most


def _names(dataset: Dataset, drawn: bool) -> Sequence[Hashable] | None:
    """Return each image's name in the table; None if it has no names.

    The name of a simulated drawing is its true class and pose.
    """
    particles = dataset.source.particles
    truth = particles.truth() if drawn else None
    if truth is not None:
        return list(truth.itertuples(index=False, name=None))
    identities = identities_of(particles)
    return None if not identities else identities[-1].key.tolist()
