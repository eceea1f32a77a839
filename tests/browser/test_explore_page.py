"""The page of ``modpose explore`` in a real browser: it lassoes, names, undoes, writes.

``make test-browser`` runs this; ``make test`` does not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from modpose.explore.folder import write_folder
from modpose.run import Run
from tests.explore.test_sharp_places import MANY, sharp  # noqa: F401
from tests.outputs.test_export import star_run
from tests.outputs.test_sharp_volumes import folder  # noqa: F401

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = pytest.mark.browser
READY = "document.documentElement.dataset.ready === 'yes'"
PATIENCE = 60_000
STORED = Path(__file__).parents[1] / "stored_runs"
CORNERS = [(0.36, 0.2), (0.75, 0.25), (0.72, 0.84), (0.31, 0.77)]
"""Of the lasso, as fractions of the scatter."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return star_run(tmp_path_factory.mktemp("explored"), "3.1")


@pytest.fixture(scope="module")
def address(run: Run) -> Iterator[str]:
    with served(run.path, run.path) as address:
        yield address


@contextmanager
def served(*arguments: Path | str) -> Iterator[str]:
    """Serve runs within this context."""
    command = [sys.executable, "-m", "modpose", "explore", *map(str, arguments), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened; a message on its console, or a request elsewhere, is a failure."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text))
    opened.on(
        "request",
        lambda request: (
            request.url.startswith((address, "blob:", "data:")) or faults.append(request.url)
        ),
    )
    opened.goto(address)
    opened.wait_for_function(READY, timeout=PATIENCE)
    opened.wait_for_function("document.querySelector('#saved') && true")
    yield opened
    opened.close()
    assert not faults


def lasso(page: Page, stage: str = "#stage") -> None:
    """Draw around CORNERS in a scatter."""
    page.click("#lasso")
    box = page.locator(stage).bounding_box()
    assert box is not None
    closed = [*CORNERS, CORNERS[0]]
    page.mouse.move(box["x"] + closed[0][0] * box["width"], box["y"] + closed[0][1] * box["height"])
    page.mouse.down()
    for x, y in closed[1:]:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=30)
        page.wait_for_timeout(60)
    page.mouse.up()


def inside(run: Run) -> NDArray[np.bool_]:
    """Mark the images within CORNERS: the page draws the range of each axis on 95 % of its side."""
    from matplotlib.path import Path as Outline

    z = run.latents()[["z_0", "z_1"]].to_numpy()
    unit = (z - z.min(axis=0)) / np.ptp(z, axis=0) * 0.95 + 0.025
    unit[:, 1] = 1 - unit[:, 1]
    outline = Outline(CORNERS, closed=False)
    marked = np.asarray(outline.contains_points(unit))
    for margin in (0.01, -0.01):  # no image is so near to the lasso that its side is in doubt
        assert (outline.contains_points(unit, radius=margin) == marked).all()
    return marked


def rows_of(path: Path) -> list[int]:
    """Return the rows of the input that a STAR file holds, in its order."""
    table = starfile.read(path)["particles"]
    return [round(x / 1.5) for x in table["rlnCoordinateX"]]


def test_a_lasso_becomes_a_star_file_with_its_rows(page: Page, run: Run, tmp_path: Path) -> None:
    lasso(page)
    expected = inside(run)
    expect(page.locator("#count")).to_have_text(str(expected.sum()), timeout=PATIENCE)
    page.fill("#name", "by lasso")
    page.click("#save button")
    expect(page.locator("#saved strong")).to_have_text("by lasso")
    page.get_by_label("Format of by lasso").select_option(".star")
    page.get_by_role("button", name="Write by lasso to a file").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="by lasso.star").click()
    download.value.save_as(tmp_path / "got.star")
    assert rows_of(tmp_path / "got.star") == np.flatnonzero(expected).tolist()
    stored = np.load(run.path / "selections" / "by lasso.npy")
    np.testing.assert_array_equal(stored, np.flatnonzero(expected))

    page.click("#undo")  # the name is gone; its list stays, as a table was written of it
    expect(page.locator("#saved li")).to_have_count(0)
    expect(page.locator("#count")).to_have_text(str(expected.sum()))
    page.click("#undo")
    expect(page.locator("#count")).to_have_text("0")
    assert (run.path / "selections" / "by lasso.npy").exists()
    page.click("#redo")
    expect(page.locator("#count")).to_have_text(str(expected.sum()))
    page.click("#redo")
    expect(page.locator("#saved strong")).to_have_text("by lasso")
    page.wait_for_timeout(300)
    np.testing.assert_array_equal(
        np.load(run.path / "selections" / "by lasso.npy"), np.flatnonzero(expected)
    )


def test_choices_combine(page: Page, run: Run) -> None:
    latents = run.latents()
    one = (latents["cluster"] == 1).to_numpy()
    page.select_option("#colour", "cluster")
    page.get_by_role("button", name="1", exact=True).click()
    expect(page.locator("#count")).to_have_text(str(one.sum()))
    positive = (latents["z_0"] > 0).to_numpy()
    for how, expected in {
        "or": one | positive,
        "and": (one | positive) & positive,
        "not": np.zeros(len(one), bool),
    }.items():
        page.select_option("#combine", how)
        page.fill("#expression", "z_0 > 0")
        page.click("#where button")
        expect(page.locator("#count")).to_have_text(str(expected.sum()))
    page.click("#invert")
    expect(page.locator("#count")).to_have_text(str(len(one)))


def test_a_lasso_in_the_run_beside_selects_too(page: Page, run: Run) -> None:
    page.select_option("#beside", "1")
    page.wait_for_selector("#second-stage[data-drawn]", timeout=PATIENCE)
    lasso(page, "#second-stage")
    expect(page.locator("#count")).to_have_text(str(inside(run).sum()), timeout=PATIENCE)
    page.select_option("#beside", "")
    expect(page.locator("#second")).to_be_hidden()


def test_the_run_beside_is_drawn_though_its_columns_come_late(page: Page) -> None:
    held: list[Route] = []
    page.route(re.compile(r"column\?name"), lambda route: held.append(route))
    page.select_option("#beside", "1")
    page.wait_for_timeout(300)
    page.click("#invert")  # draws anew, before the second scatter has columns
    page.wait_for_timeout(300)
    assert held
    for one in held:
        one.continue_()
    page.wait_for_selector("#second-stage[data-drawn]", timeout=PATIENCE)


def test_numbers_at_the_edges_are_those_of_the_columns(page: Page, run: Run) -> None:
    """A number stands where the range of its column, on 95 % of the side, has it."""
    z = run.latents()[["z_0", "z_1"]].to_numpy()
    low, size = z.min(axis=0), np.ptp(z, axis=0)

    def numbers() -> list[tuple[int, float, float]]:
        marks = page.locator("#stage .ticks span").evaluate_all(
            "all => all.map((m) => [m.className, m.textContent, m.style.left || m.style.bottom])"
        )
        return [
            (int(side == "up"), float(text.replace("−", "-")), float(place[:-1]) / 100)
            for side, text, place in marks
        ]

    before = numbers()
    assert {axis for axis, _, _ in before} == {0, 1}
    for axis, value, place in before:
        assert place == pytest.approx((value - low[axis]) / size[axis] * 0.95 + 0.025, abs=1e-4)
    page.focus("#stage")
    page.keyboard.press("+")
    page.wait_for_timeout(300)
    after = numbers()
    for axis in (0, 1):
        slopes = [
            np.polyfit(*np.array([p[1:] for p in ps if p[0] == axis]).T, 1)[0]
            for ps in (before, after)
        ]
        assert slopes[1] > 1.05 * slopes[0]
    page.click("#whole")


def test_filters_leave_what_their_ranges_say(page: Page, run: Run) -> None:
    page.wait_for_selector("#filter-column optgroup[label=input]", state="attached")
    for column in ("z_1", "rlnCoordinateX"):
        page.select_option("#filter-column", column)
        page.click("#filter-add")
    page.get_by_label("z_1 from").fill("0")
    page.get_by_label("z_1 from").blur()
    page.get_by_label("rlnCoordinateX to").fill("30")
    page.get_by_label("rlnCoordinateX to").blur()
    expected = (run.latents()["z_1"].to_numpy() >= 0) & (np.arange(60) * 1.5 <= 30)
    page.click("#shown")
    expect(page.locator("#count")).to_have_text(str(expected.sum()))
    page.click("#filter-clear")
    expect(page.locator("#status")).to_have_text("No filter.")


def test_the_keyboard_goes_through_images_and_draws_them(page: Page) -> None:
    page.locator("#stage").focus()
    page.keyboard.press("n")
    expect(page.locator("#image-about")).to_have_text("Image 1 of 60")
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.keyboard.press("Shift+N")
    expect(page.locator("#image-about")).to_have_text("Image 2 of 60")
    expect(page.locator("#pictures img")).to_have_count(3)
    for picture in page.locator("#pictures img").all():
        expect(picture).to_be_visible()
        assert picture.get_attribute("alt")
    page.fill("#near-count", "7")
    page.click("#near button")
    expect(page.locator("#count")).to_have_text("7")
    page.locator("#stage").focus()
    for key in ("ArrowLeft", "+", "-", "0", "l", "Escape"):
        page.keyboard.press(key)
    expect(page.locator("#count")).to_have_text("0")


def test_sliders_of_the_pose_turn_the_picture(page: Page) -> None:
    before = page.locator("#place").get_attribute("src")
    angle = page.locator("#sliders label", has_text="angle").first
    angle.locator("input").fill("90")
    page.wait_for_function(f"document.querySelector('#place').src !== '{before}'")
    expect(angle.locator("output")).to_have_text("90.00")
    assert page.locator("#surface-show").is_hidden()
    bar = page.locator(".framed:has(> #place) .scale")
    box, picture = bar.bounding_box(), page.locator("#place").bounding_box()
    assert box is not None and picture is not None
    side = 1.7 * 40  # Å
    length = float(bar.inner_text().removesuffix(" Å"))
    assert box["width"] / picture["width"] == pytest.approx(length / side, rel=0.03)


def test_a_surface_turns(browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(STORED / "modpose-posed", tmp_path / "run")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    images = STORED / "posed" / "particles.star"
    with served(tmp_path / "run", "--input", images) as address:
        page.goto(address)
        page.wait_for_function(READY, timeout=PATIENCE)
        page.click("#surface-show")
        surface = page.locator("#surface")
        page.wait_for_selector("#surface[data-drawn]", timeout=PATIENCE)
        assert int(surface.get_attribute("data-triangles") or 0) > 0
        first = surface.get_attribute("data-turned")
        surface.focus()
        page.keyboard.press("ArrowRight")
        expect(surface).not_to_have_attribute("data-turned", first or "", timeout=PATIENCE)
        triangles = surface.get_attribute("data-triangles") or ""
        page.locator("#surface-level").fill("4")
        expect(surface).not_to_have_attribute("data-triangles", triangles, timeout=PATIENCE)
        page.click("#surface-show")
        expect(page.locator("#surface-part")).to_be_hidden()
        page.close()
    assert not faults


def test_sharp_maps_draw_places_of_many_dimensions(browser: Browser, sharp: Run) -> None:  # noqa: F811
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    with served(sharp.path) as address:
        page.goto(address)
        page.wait_for_function(READY, timeout=PATIENCE)
        names = page.locator("#sliders label")
        assert names.count() == 8 < MANY
        assert names.first.inner_text().startswith("sharp_0")
        page.locator("#stage").focus()
        page.keyboard.press("n")
        drawn = page.locator("#pictures figure", has_text="sharp map of its content")
        expect(drawn).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#place-about")).to_contain_text("sharp_7 = ", timeout=PATIENCE)
        expect(page.locator("#place-about")).to_contain_text(", …")
        before = page.locator("#place").get_attribute("src") or ""
        page.locator("#sliders input").first.fill("6")
        expect(page.locator("#place")).not_to_have_attribute("src", before, timeout=PATIENCE)
        page.close()
    assert not faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window(browser: Browser, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(
        viewport={"width": width, "height": 844},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(address)
    page.wait_for_function(READY, timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if scheme == "dark" else "rgb(255, 255, 255)")
    for control in page.locator("button:visible, select:visible, input:visible").all():
        assert control.evaluate(NAMED), control.evaluate("e => e.outerHTML")
    page.close()


NAMED = "e => !!(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())"


def test_a_folder_opens_without_a_server(browser: Browser, run: Run, tmp_path: Path) -> None:
    write_folder([run], tmp_path / "out", quiet=True)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((tmp_path / "out" / "index.html").as_uri())
    page.wait_for_function(READY, timeout=PATIENCE)
    lasso(page)
    expected = inside(run)
    expect(page.locator("#count")).to_have_text(str(expected.sum()), timeout=PATIENCE)
    page.fill("#name", "elsewhere")
    page.click("#save button")
    with page.expect_download() as download:
        page.get_by_role("link", name="elsewhere.txt").click()
    download.value.save_as(tmp_path / "got.txt")
    rows = [int(line) for line in (tmp_path / "got.txt").read_text().split()]
    assert rows == np.flatnonzero(expected).tolist()
    page.locator("#stage").focus()
    page.keyboard.press("n")
    for picture in page.locator("#pictures img").all():
        expect(picture).to_be_visible()
        page.wait_for_function(LOADED, arg=picture.element_handle())
    page.wait_for_function(LOADED, arg=page.locator("#place").element_handle())
    page.close()
    assert not faults


LOADED = "image => image.complete && image.naturalWidth > 0"
