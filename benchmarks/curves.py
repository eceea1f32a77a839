"""Learning curves against time: who was where when, in words and in a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

TEXTBOOK = "textbook"
COLOURS = ("#0b6e99", "#7a4d9f", "#2e7d4f")
GREY, ACCENT = "#777777", "#b3541e"


class Point(NamedTuple):
    """A learning curve's: seconds of training, images seen, validation ELBO in nats per image.

    ``holds_content`` says that the bound is that of the model with z = 0, as a recipe may start.
    """

    seconds: float
    images: int
    elbo: float
    holds_content: bool = False


class Arrival(NamedTuple):
    """When a recipe reached the textbook's best bound.

    Attributes
    ----------
    seconds
        Of training until then; None: it did not get there.
    sooner
        The textbook's time over this one.
    seconds_with_content, sooner_with_content
        The same, counting only the time in which content was decoded.
    final_elbo
        Where the recipe ended.
    """

    seconds: float | None
    sooner: float | None
    seconds_with_content: float | None
    sooner_with_content: float | None
    final_elbo: float


class Summary(NamedTuple):
    """The textbook's best bound, its time, and every recipe's arrival at it."""

    elbo: float
    seconds: float
    arrivals: dict[str, Arrival]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        arrivals = {name: arrival._asdict() for name, arrival in self.arrivals.items()}
        return self._asdict() | {"arrivals": arrivals}


Curves = Mapping[str, list[Point]]


def seconds_to_reach(curve: list[Point], elbo: float) -> float:
    """First time at which a curve was seen at ``elbo`` or above; infinite if never."""
    return next((point.seconds for point in curve if point.elbo >= elbo), math.inf)


def summary(curves: Curves) -> Summary:
    """Compare the curves: the textbook's best, when each got there, and the ratio.

    Once over a recipe's whole curve, once over the part where content is decoded.
    """
    best = max(curves[TEXTBOOK], key=lambda point: point.elbo)
    arrivals = {}
    for name, whole in curves.items():
        if name == TEXTBOOK:
            continue
        decoding = [point for point in whole if not point.holds_content]
        seconds = seconds_to_reach(whole, best.elbo)
        with_content = seconds_to_reach(decoding, best.elbo)
        arrivals[name] = Arrival(
            seconds=seconds if math.isfinite(seconds) else None,
            sooner=best.seconds / seconds or None,
            seconds_with_content=with_content if math.isfinite(with_content) else None,
            sooner_with_content=best.seconds / with_content or None,
            final_elbo=whole[-1].elbo,
        )
    return Summary(best.elbo, best.seconds, arrivals)


def sentences(found: Summary) -> str:
    """Say the summary."""
    lines = [
        f"The textbook reached a validation ELBO of {found.elbo:.1f} nats per image in "
        f"{found.seconds:.0f} s."
    ]
    for name, arrival in found.arrivals.items():
        reached = f"recipe {name} did not get there"
        if arrival.seconds is not None:
            reached = (
                f"recipe {name} was there after {arrival.seconds:.1f} s: "
                f"{arrival.sooner:.0f}x sooner"
            )
        if arrival.sooner != arrival.sooner_with_content is not None:
            reached += (
                f", content still held at zero; {arrival.seconds_with_content:.1f} s, "
                f"{arrival.sooner_with_content:.0f}x sooner, with content decoded"
            )
        lines.append(f"{reached} (it ended at {arrival.final_elbo:.1f}).")
    return "\n".join(lines)


def draw(curves: Curves, found: Summary, title: str, path: Path) -> None:
    """Draw validation ELBO against training time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(found.arrivals, COLOURS, strict=False)) | {TEXTBOOK: GREY}
    for name, points in curves.items():
        colour = colours[name]
        axes.plot([p.seconds for p in points], [p.elbo for p in points], ".-", color=colour)
        axes.annotate(
            name,
            (points[-1].seconds, points[-1].elbo),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        held = [p for p in points if p.holds_content]
        if held:
            axes.plot(
                [p.seconds for p in held], [p.elbo for p in held], "o", mfc="white", color=colour
            )
            axes.plot([], [], "o", mfc="white", color=colour, label="content held at zero")
            axes.legend(frameon=False, loc="lower right")
    _mark_soonest(axes, found)
    axes.set_xscale("log")
    axes.set_xlabel("training time, s, one thread")
    axes.set_ylabel("validation ELBO, nats per image")
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _mark_soonest(axes: Any, found: Summary) -> None:
    """Draw an arrow from the textbook's best to the recipe that was there first."""
    there = [arrival for arrival in found.arrivals.values() if arrival.seconds is not None]
    if not there:
        return
    first = min(there, key=lambda arrival: arrival.seconds or math.inf)
    assert first.seconds is not None
    axes.annotate(
        "",
        (first.seconds, found.elbo),
        (found.seconds, found.elbo),
        arrowprops={"arrowstyle": "->", "color": ACCENT},
    )
    axes.annotate(
        f"{first.sooner:.0f}x sooner",
        (math.sqrt(first.seconds * found.seconds), found.elbo),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        color=ACCENT,
    )
