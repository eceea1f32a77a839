"""The vendored component is the file that was made as its notes say."""

from __future__ import annotations

import hashlib
import re

from modpose.explore.page import HERE, VENDORED, files, html, modules


def test_the_component_has_the_hash_of_its_notes() -> None:
    notes = (HERE / "vendor" / "README.md").read_text()
    expected = dict(re.findall(r"sha256 ([0-9a-f]{64})  (\S+)", notes))
    found = {hashlib.sha256((HERE / one).read_bytes()).hexdigest(): one[7:] for one in VENDORED}
    assert found == expected


def test_every_package_in_it_has_its_licence() -> None:
    licences = (HERE / "vendor" / "LICENSES.txt").read_text()
    named = re.findall(r"[\w@/-]+@\d[\d.]+\d", (HERE / "vendor" / "README.md").read_text())
    packages = {name.rpartition("@")[0] for name in named} - {"esbuild"}
    assert len(packages) == 10
    for package in packages:
        assert f"==== {package} " in licences


def test_modules_import_only_each_other_and_nothing_comes_from_outside() -> None:
    known = modules()
    for name, path in files().items():
        text = path.read_text(encoding="utf-8")
        if name in VENDORED:
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
