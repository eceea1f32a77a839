"""Imports between the parts of the package point one way."""

from __future__ import annotations

from pathlib import Path

from tools.layers import LAYERS, imports, modules, part_of, rising


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
