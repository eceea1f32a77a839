"""The folder that opens without a server holds what the page needs, and nothing of others."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modpose.errors import InputError
from modpose.explore import folder as exported
from modpose.explore.folder import write_folder
from modpose.explore.selections import Selections
from modpose.run import Run
from tests.outputs.test_export import N, star_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(exported, "MOST_IMAGES", 5)
    monkeypatch.setattr(exported, "MOST_PLACES", 4)
    run = star_run(tmp_path, "3.1")
    Selections(run).save("odd", np.arange(N) % 2 == 1, "by hand")
    return run


def test_the_folder_holds_columns_pictures_and_selections(run: Run, tmp_path: Path) -> None:
    page = write_folder([run], tmp_path / "out", quiet=True)
    text = page.read_text(encoding="utf-8")
    found = re.search(r"window\.MODPOSE = (.*);</script>", text)
    assert found is not None
    [about] = json.loads(found[1])
    assert 'from "explore/source"' not in text and "fetch(" not in text
    for name in ("z_0", "rlnCoordinateX"):
        script = (tmp_path / "out" / about["columns"][name]).read_text()
        [coded] = re.findall(r'"(.*)"', script)
        values = np.frombuffer(base64.b64decode(coded), "<f4")
        expected = run.latents()["z_0"] if name == "z_0" else np.arange(N) * 1.5
        np.testing.assert_array_equal(values, np.asarray(expected, np.float32))
    assert len(about["rows"]) == 5 and len(about["places"]) == 4
    pictures = [
        f"images/{row}-{kind}.png" for row in about["rows"] for kind in ("particle", "upright")
    ]
    for name in [*pictures, "places/3.png"]:
        with Image.open(tmp_path / "out" / "run0" / name) as picture:
            assert picture.size == (40, 40)
    [kept] = about["selections"]
    assert (kept["name"], kept["count"]) == ("odd", N // 2)
    stored = np.load(tmp_path / "out" / "run0" / "selections" / "odd.npy")
    np.testing.assert_array_equal(stored, np.arange(1, N, 2))


def test_only_a_folder_of_ours_is_replaced(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder([run], out, quiet=True)
    with pytest.raises(InputError, match="already exists"):
        write_folder([run], out, quiet=True)
    (out / "run0" / "images" / "old.png").touch()
    write_folder([run], out, overwrite=True, quiet=True)
    assert not (out / "run0" / "images" / "old.png").exists()
    (out / "mine.txt").touch()
    with pytest.raises(InputError, match="holds other files"):
        write_folder([run], out, overwrite=True, quiet=True)
