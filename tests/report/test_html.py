"""The page: nothing is loaded from anywhere, whatever the texts in it hold."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from modpose import report
from modpose.config import Config
from modpose.plot import figures, scatter
from modpose.plot.html import Picture, Section, render, script_json
from modpose.report import summary

NASTY = "</script><script>alert(1)</script> & \"quotes\" <img src='http://evil/'>"


class Reader(HTMLParser):
    """Collects what a browser would load, and the texts of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self._open = ""

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.attributes.append((tag, values))
        for name in ("src", "srcset", "data", "poster", "action"):
            if name in values:
                self.loads.append(values[name] or "")
        if tag == "link":
            self.loads.append(values.get("href") or "")
        if "style" in values:
            self.styles.append(values["style"] or "")
        self._open = tag
        if tag == "script":
            self.scripts.append((values, ""))

    def handle_data(self, data) -> None:
        if self._open == "script":
            values, text = self.scripts[-1]
            self.scripts[-1] = (values, text + data)
        elif self._open == "style":
            self.styles.append(data)

    def handle_endtag(self, tag) -> None:
        self._open = ""


@pytest.fixture(scope="module")
def page() -> str:
    rng = np.random.default_rng(0)
    figure = figures.learning_curves({"epoch": np.arange(3), "elbo": np.arange(3.0)})
    view = scatter.View(NASTY, rng.normal(size=5), rng.normal(size=5), "x", "y")
    labels = scatter.categories("label", ["a", NASTY, "a", "b", "b"])
    assert labels is not None
    data = scatter.interactive(
        [view], [labels], np.arange(5), [rng.random((5, 8, 8)), rng.random((3, 8, 8))]
    )
    sections = [
        Section("one", "First", "Caption.", "fine.", "poor.", [Picture.of(figure, "a.png", "Alt")]),
        Section("two", NASTY, NASTY, header=("a", "b"), table=[(NASTY, "1")], scatter=data),
    ]
    return render(NASTY, "sub", [("Data", NASTY)], [NASTY], sections)


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_page_loads_nothing_from_the_network(reader: Reader) -> None:
    assert reader.loads
    assert all(load.startswith("data:") for load in reader.loads)
    for style in reader.styles:
        assert "@import" not in style
        assert "url(" not in style


def test_page_forbids_the_browser_to_load_anything(reader: Reader) -> None:
    (policy,) = [values["content"] for tag, values in reader.attributes if values.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "connect-src" not in policy


SCRIPTS = {
    "chart.js": "c17f2ce49fb9c71ef7fb39c03f868804ac5ab34730149976eebe6b7f807bef0c",
    "hammer.js": "48a49126467354ca90ce115e82149652c0ad5289f8d8651ce200d693dd78943c",
    "zoom.js": "e4a088e5bab93be6ee47c939eeb9ebaa80e0b39156d4bdfd1af9c844be81b6c4",
}


def test_scripts_of_other_projects_are_those_that_were_published() -> None:
    folder = Path(report.__file__).parent / "vendor"
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.js")}
    assert found == SCRIPTS
    licences = (folder / "LICENSES.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in licences for name in SCRIPTS)
    assert licences.count("Permission is hereby granted") == len(SCRIPTS)


def test_texts_cannot_break_out(page: str, reader: Reader) -> None:
    assert len(reader.scripts) == 5  # the data, the plotting library in three files, ours
    assert not any("evil" in (values.get("src") or "") for _, values in reader.attributes)
    values, text = reader.scripts[0]
    assert values["type"] == "application/json"
    assert NASTY in json.loads(text)["colourings"][0]["categories"]


def test_every_picture_says_what_it_shows(reader: Reader) -> None:
    images = [values for tag, values in reader.attributes if tag == "img"]
    assert [values["alt"] for values in images] == ["Alt"]


def test_contents_lead_to_every_section(reader: Reader) -> None:
    anchors = {values["id"] for tag, values in reader.attributes if tag == "section"}
    links = {values["href"] for tag, values in reader.attributes if tag == "a"}
    assert links == {"#summary"} | {f"#{anchor}" for anchor in anchors}


def test_a_page_without_scatter_has_no_script() -> None:
    reader = Reader()
    reader.feed(render("t", "s", [], [], [Section("one", "First", "Caption.")]))
    assert reader.scripts == []


def test_script_json_is_json_and_safe() -> None:
    value = {"text": NASTY, "numbers": [1.5, None]}
    text = script_json(value)
    assert json.loads(text) == value
    assert "<" not in text
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json(float("nan"))


# --- summary ----------------------------------------------------------------------------------


def test_facts_give_the_elbo_of_the_epoch_that_was_kept() -> None:
    metrics = {
        "epoch": np.array([1, 2, 3]),
        "elbo": np.array([-3000.0, -2000.5, -1999.0]),
        "val_elbo": np.array([-3000.0, -2100.25, -2200.0]),
    }
    environment = {
        "shape": [40, 40], "channels": 1, "pixel_size": 3.25, "input": "p.star",
        "best_epoch": 2, "training_seconds": 3700.0, "stopped": "",
    }  # fmt: skip
    found = dict(
        summary.facts(Config(recipe="vae"), environment, metrics, {"train": 1800, "val": 200})
    )
    assert found["ELBO, training"] == "−2,000.5 nats (epoch 2, the best)"
    assert found["ELBO, validation"] == "−2,100.2 nats (epoch 2, the best)"
    assert found["Training"] == "3 epochs in 1 h 1 min"
    assert found["Images"] == "1,800 train, 200 val"
    assert found["Pixel size"] == "3.25 Å"
    assert "Ended" not in found
    environment["stopped"] = "max-minutes"
    found = dict(summary.facts(Config(recipe="vae"), environment, metrics, {"train": 2000}))
    assert found["Ended"] == "at the limit of time (--max-minutes)"


def quiet_metrics() -> dict[str, np.ndarray]:
    epoch = np.arange(1, 101)
    return {
        "epoch": epoch,
        "val_elbo": -2000 - 900 * np.exp(-epoch / 5.0),
        "val_kl_content": np.full(100, 4.0),
    }


def notes(metrics, z=None, std=None, shift=None) -> str:
    content = np.random.default_rng(0).standard_normal((50, 2)) if z is None else z
    return " ".join(summary.notes(metrics, content, std, shift, 40))


def test_a_good_run_gets_no_notes() -> None:
    assert notes(quiet_metrics(), None, np.full(50, 5.0), np.zeros((50, 2))) == ""


def test_notes_name_what_is_wrong() -> None:
    metrics = quiet_metrics()
    falling = metrics | {"val_elbo": -2000 - 0.5 * np.abs(metrics["epoch"] - 50.0)}
    assert "best at epoch 50 of 100" in notes(falling)
    assert "almost no information" in notes(metrics | {"val_kl_content": np.full(100, 0.01)})
    z = np.random.default_rng(0).standard_normal((50, 3)) * [1, 1, 0.01]
    assert "Hardly used latents: 1 of 3" in notes(metrics, z)
    assert "unsure of the angle (median s.d. 80°)" in notes(metrics, None, np.full(50, 80.0))
    assert "100 % of the objects" in notes(metrics, None, None, np.full((50, 2), 15.0))
