"""Each vendored component is the file that was made as its notes say."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from modpose.explore.page import HERE, VENDORED, files, html, modules
from modpose.plot.surface import MODULES

SCRIPTS = (HERE / VENDORED, MODULES["modpose/ogl"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_component_has_the_hash_of_its_notes(script: Path) -> None:
    notes = (script.parent / "README.md").read_text()
    expected = dict(re.findall(r"sha256 ([0-9a-f]{64})  (\S+)", notes))
    assert expected == {hashlib.sha256(script.read_bytes()).hexdigest(): script.name}


@pytest.mark.parametrize(
    ("script", "licences", "count"),
    [(SCRIPTS[0], "LICENSES.txt", 9), (SCRIPTS[1], "LICENSE.txt", 1)],
)
def test_every_package_in_it_has_its_licence(script: Path, licences: str, count: int) -> None:
    text = (script.parent / licences).read_text()
    named = re.findall(r"[\w@/-]+@\d[\d.]+\d", (script.parent / "README.md").read_text())
    packages = {name.rpartition("@")[0] for name in named} - {"esbuild"}
    assert len(packages) == count
    for package in packages:
        assert f"==== {package} " in text


def test_modules_import_only_each_other_and_nothing_comes_from_outside() -> None:
    known = modules()
    for name, path in files().items():
        text = path.read_text(encoding="utf-8")
        if path in SCRIPTS:
            continue
        for wanted in re.findall(r'from "([^"]+)"', text):
            assert wanted in known, f"{name} imports {wanted}"
        assert not re.search(r"https?://", text), name
    assert "http" not in html("n")


def test_every_element_that_a_module_asks_for_is_in_the_page() -> None:
    page = (HERE / "index.html").read_text(encoding="utf-8")
    there = set(re.findall(r'id="([\w-]+)"', page))
    for path in files().values():
        if path.suffix == ".js" and path.parent == HERE:
            asked = set(re.findall(r'\$\("([\w-]+)"\)', path.read_text(encoding="utf-8")))
            assert asked <= there, path.name
