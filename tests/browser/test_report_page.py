"""The report in a real browser: colours from any column, pictures of points, dark and narrow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modpose.report import build_report
from modpose.run import Run
from tests.report.test_build import run_with_table

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser
STORED = Path(__file__).parents[1] / "stored_runs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_with_table(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def address(run: Run) -> str:
    return build_report(run.path, quiet=True).as_uri()


def opened(browser: Browser, address: str, width: int, dark: bool) -> Iterator[Page]:
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(address)
    yield page
    page.close()
    assert not faults


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    yield from opened(browser, address, 1280, False)


def point_at(page: Page, row: int) -> None:
    """Move the pointer to a point of the scatter."""
    page.locator("#plot").scroll_into_view_if_needed()
    place = page.evaluate(
        """row => {
          const chart = Chart.getChart('plot'), frame = chart.canvas.getBoundingClientRect();
          const parts = chart.data.datasets.map((one, k) => [one.rows.indexOf(row), k]);
          const [at, k] = parts.find(([at]) => at >= 0);
          const point = chart.getDatasetMeta(k).data[at];
          return [frame.left + point.x, frame.top + point.y];
        }""",
        row,
    )
    page.mouse.move(*place)


def test_points_are_coloured_by_a_column_of_the_users_table(page: Page) -> None:
    names = page.locator("#colouring option").all_inner_texts()
    assert {"cluster", "inferred angle (degrees)", "ELBO (nats)", "rlnCoordinateX"} <= set(names)
    assert "rlnHelicalTubeID" not in names  # the same for all images
    before = page.evaluate("Chart.getChart('plot').data.datasets[0].backgroundColor")
    page.select_option("#colouring", label="rlnCoordinateX")
    expect(page.locator("#bar")).to_contain_text("rlnCoordinateX")
    shades = page.evaluate("Chart.getChart('plot').data.datasets[0].backgroundColor")
    assert shades != before and len(set(shades)) > 20
    point_at(page, 3)
    hover = page.locator("#hover")
    expect(hover).to_be_visible()
    number = int(hover.inner_text().split("image ")[1].split()[0])
    expect(hover).to_contain_text(f"rlnCoordinateX: {number * 1.5:g}")


def test_a_point_shows_its_image_and_its_upright_version(page: Page) -> None:
    point_at(page, 0)
    expect(page.locator("#hover .thumb")).to_have_count(2)
    expect(page.locator("#hover")).to_contain_text("image ")


def test_the_surface_of_a_map_turns_and_the_slider_goes_to_the_next(
    browser: Browser, tmp_path: Path
) -> None:
    shutil.copytree(STORED / "modpose-posed", tmp_path / "run")
    made = build_report(tmp_path / "run", input=STORED / "posed" / "particles.star", quiet=True)
    for page in opened(browser, made.as_uri(), 1280, False):
        canvas = page.locator("#surface-canvas")
        page.wait_for_selector("#surface-canvas[data-drawn]")
        first = canvas.get_attribute("data-turned") or ""
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(canvas).not_to_have_attribute("data-turned", first)
        assert int(canvas.get_attribute("data-triangles") or 0) > 0
        names = [page.locator("#step-name").inner_text()]
        page.locator("#step").fill("6")
        names.append(page.locator("#step-name").inner_text())
        assert names[0] != names[1]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window(browser: Browser, address: str, width: int, dark: bool) -> None:
    for page in opened(browser, address, width, dark):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
