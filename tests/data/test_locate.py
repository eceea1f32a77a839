"""Files that a table names are found after a move, and never one file for two names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from modpose.data.inspect import describe
from modpose.data.locate import find_files
from modpose.errors import InputError

OLD = "/old/server/proj/Extract"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A moved project: one flat file, and two of one name in their folders."""
    for file in ("flat/mic001.mrcs", "flat/mic002.mrcs"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(file)
    for grid in ("gridA", "gridB"):
        (tmp_path / "proj/Extract" / grid).mkdir(parents=True)
        (tmp_path / "proj/Extract" / grid / "mic001.mrcs").write_text(grid)
    return tmp_path


def both() -> list[str]:
    return [f"{OLD}/gridA/mic001.mrcs", f"{OLD}/gridB/mic001.mrcs"]


def test_two_names_are_never_read_from_one_file(place: Path) -> None:
    expected = "gridA/mic001.mrcs and .*gridB/mic001.mrcs would both be read from .*flat/mic001"
    for datadir in (place / "flat", None):
        with pytest.raises(InputError, match=expected):
            find_files(both(), place / "flat/p.star", datadir)
    (place / "link.mrcs").symlink_to(place / "flat/mic001.mrcs")
    with pytest.raises(InputError, match=r"would both be read from"):
        find_files(["/x/link.mrcs", "/x/mic001.mrcs"], place / "flat/p.star", place)


@pytest.mark.parametrize("datadir", ["proj", "proj/Extract"])
def test_the_longest_end_of_the_path_is_found_and_said(
    place: Path, datadir: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, missing = find_files(both(), place / "flat/p.star", place / datadir)
    assert not missing
    assert [found[name].read_text() for name in both()] == ["gridA", "gridB"]
    assert caplog.text.count("is read from") == 2


def test_what_fits_one_name_only_by_its_bare_name_is_no_guess_for_it(place: Path) -> None:
    """gridA is there, gridB is not: the flat file may be either's."""
    (place / "proj/Extract/gridB/mic001.mrcs").unlink()
    (place / "proj/mic001.mrcs").write_text("whose?")
    with pytest.raises(InputError, match=r"gridB/mic001.mrcs and .*gridA/mic001.mrcs would both"):
        find_files(both(), place / "flat/p.star", place / "proj")


@pytest.mark.parametrize(
    "name",
    [
        "C:\\data\\proj\\gridA\\mic001.mrcs",
        "../../elsewhere/gridA/mic001.mrcs",
        "~/nowhere/gridA/mic001.mrcs",
        "gridA/mic001.mrcs  ",
        "gridA/./x/../mic001.mrcs",
    ],
)
def test_ways_of_writing_a_path(place: Path, name: str) -> None:
    found, _ = find_files([name], place / "p.star", place / "proj/Extract")
    assert found[name].read_text() == "gridA"


def test_another_case_is_another_file(place: Path) -> None:
    assert find_files(["Mic002.mrcs"], place / "flat/p.star", None)[1] == ["Mic002.mrcs"]


def test_many_guesses_are_counted(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"/old/{i}.mrc" for i in range(20)]
    for name in names:
        (place / Path(name).name).write_text("")
    assert not find_files(names, place / "p.star", None)[1]
    assert "(and 17 more)" in caplog.text
    assert len(caplog.text) < 1000


def test_what_is_as_written_is_no_guess(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names = ["Extract/gridA/mic001.mrcs", "Extract/gridB/mic001.mrcs"]
    table = place / "proj/Refine3D/job5/run_data.star"
    assert not find_files(names, table, None)[1]
    assert not caplog.records


def test_a_bare_name_in_a_folder_above_is_a_guess_and_a_path_is_not(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """RELION names files from the project; a bare name may be that of another data set."""
    (place / "proj/other.mrcs").write_text("of another job")
    table = place / "proj/Extract/gridA/p.star"
    found, _ = find_files(["Extract/gridB/mic001.mrcs"], table, None)
    assert found["Extract/gridB/mic001.mrcs"].read_text() == "gridB" and not caplog.text
    found, _ = find_files(["other.mrcs"], table, None)
    assert found["other.mrcs"].read_text() == "of another job"
    assert f"other.mrcs is read from {place / 'proj/other.mrcs'}" in caplog.text


def test_the_images_of_a_linked_table_are_beside_the_file(place: Path) -> None:
    (place / "proj/Extract/gridA/p.star").write_text("")
    link = place / "links/p.star"
    link.parent.mkdir()
    link.symlink_to(place / "proj/Extract/gridA/p.star")
    found, missing = find_files(["mic001.mrcs", "Extract/gridB/mic001.mrcs"], link, None)
    assert not missing
    assert [path.read_text() for path in found.values()] == ["gridA", "gridB"]


def test_a_data_folder_that_is_not_there(place: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        find_files(["a.mrc"], place / "p.star", place / "nowhere")


def test_inspect_lists_what_two_names_share_as_a_problem(place: Path) -> None:
    names = "\n".join(f"1@{name}" for name in both())
    (place / "flat/p.star").write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n{names}\n")
    description = describe(place / "flat/p.star")
    assert description.kind.startswith("a RELION table")
    assert any("would both be read from" in problem for problem in description.problems)
