"""Take the picture of the page of ``modpose explore`` for the documentation.

python -m tools.explore_picture RUN docs/images/explore.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SOFTWARE = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
READY = "document.documentElement.dataset.ready === 'yes'"
CORNERS = ((0.1, 0.08), (0.62, 0.06), (0.6, 0.92), (0.12, 0.9))
"""Of a lasso, as fractions of the scatter."""


def take(page: Page, address: str, out: Path) -> None:
    """Open the page, draw a lasso, look at an image, and take the picture."""
    page.goto(address)
    page.wait_for_function(READY, timeout=120_000)
    page.click("#lasso")
    box = page.locator("#stage").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in CORNERS]
    page.mouse.move(*places[0])
    page.mouse.down()
    for x, y in [*places[1:], places[0]]:
        page.mouse.move(x, y, steps=30)
        page.wait_for_timeout(60)
    page.mouse.up()
    page.select_option("#filter-column", "elbo")
    page.click("#filter-add")
    page.locator("#stage").focus()
    page.keyboard.press("n")
    page.wait_for_timeout(3000)
    page.evaluate("document.getElementById('side').scrollTop = 0")
    page.screenshot(path=out)


def main() -> None:
    """Serve the run, and take the picture."""
    parser = argparse.ArgumentParser(prog="python -m tools.explore_picture", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "modpose", "explore", str(arguments.run), "--no-browser"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=SOFTWARE
        )
        take(chromium.new_page(viewport={"width": 1280, "height": 900}), address, arguments.out)
        server.terminate()


if __name__ == "__main__":
    main()
