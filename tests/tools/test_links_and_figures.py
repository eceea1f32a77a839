"""The check of links and figures says what is broken, and what has to be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from modpose import __version__
from tools.figures import Made, broken_links, cells_of

PAGE = """# A page

[there](there.md), [a name](there#part), [out](https://example.org/x), [here](#part),
![picture](gone.png) and [gone](sub/gone.md)

```console
modpose fit a.star \\
    -o run
[not a link](nowhere.md)
```

```{code-cell}
%%bash
modpose report run
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "there.md").touch()
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_links_to_missing_files_are_found(page: Path) -> None:
    assert broken_links(page) == ["gone.png", "sub/gone.md"]


def test_a_figure_is_due_when_its_command_or_version_changed(page: Path) -> None:
    made = Made.now(page, "modpose fit a.star -o run")
    assert made.problem() is None
    assert "no longer in" in str(Made.now(page, "modpose fit b.star -o run").problem())
    assert "modpose 0.0" in str(Made(page.as_posix(), made.commands, "0.0").problem())
    assert "missing" in str(Made("nowhere.md", made.commands, __version__).problem())


def test_a_picture_of_a_tutorial_is_due_when_a_cell_changed(page: Path) -> None:
    made = Made.now(page, cells_of(page))
    page.write_text(PAGE.replace("# A page", "# Other words"))
    assert made.problem() is None
    page.write_text(PAGE.replace("report run", "report other"))
    assert "other cells" in str(made.problem())
