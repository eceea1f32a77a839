"""Imports between the parts of the package point one way."""

from __future__ import annotations

from pathlib import Path

from tools.layers import LAYERS, all_imports, imports, modules, needless, part_of, rising


def test_every_part_has_a_row() -> None:
    assert {part_of(module) for module in modules()} == {part for row in LAYERS for part in row}


def test_no_import_points_up_or_closes_a_circle() -> None:
    found = [f"{one.module}:{one.line} imports {one.imported}" for one in rising(list(imports()))]
    assert not found


def test_an_import_that_points_up_is_seen(tmp_path: Path) -> None:
    """Also inside a function, and for type checkers alone."""
    for name, text in {
        "data/a.py": "def f():\n    import modpose.model.vae\n",
        "model/vae.py": "",
        "geometry/b.py": "if TYPE_CHECKING:\n    from modpose.data.a import f\n",
        "files/c.py": "import modpose.geometry.b\n",
        "model/__init__.py": "",
    }.items():
        path = tmp_path / "modpose" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    up = rising(list(imports(tmp_path / "modpose")))
    assert [(one.module, one.imported) for one in up] == [
        ("modpose.data.a", "modpose.model.vae"),
        ("modpose.geometry.b", "modpose.data.a"),
    ]
    assert up[0].inside and not up[1].inside


def test_imports_inside_functions_wait_for_something_slow() -> None:
    found = needless(all_imports())
    assert not [f"{one.module}:{one.line} imports {one.imported}" for one in found]


def test_an_import_that_could_stand_at_the_top_is_seen(tmp_path: Path) -> None:
    for name, text in {
        "data/a.py": "def f():\n    import modpose.data.fast\n    import modpose.data.slow\n",
        "data/b.py": "import torch\ndef f():\n    import modpose.data.slow\n",
        "data/fast.py": "if TYPE_CHECKING:\n    import torch\n",
        "data/slow.py": "import modpose.data.slower\n",
        "data/slower.py": "import torch\n",
        "data/__init__.py": "",
    }.items():
        path = tmp_path / "modpose" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = needless(all_imports(tmp_path / "modpose"))
    assert [(one.module, one.imported) for one in found] == [
        ("modpose.data.a", "modpose.data.fast"),
        ("modpose.data.b", "modpose.data.slow"),
    ]
