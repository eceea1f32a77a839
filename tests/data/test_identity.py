"""Rows of two tables are matched by what names their image, never by their place."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose.data.identity import (
    RowIdentity,
    common_identity,
    identities_of,
    match_rows,
)
from modpose.data.image_names import split_names
from modpose.data.particles import Particles
from modpose.data.paths import match_stacks, normalised
from modpose.data.source import open_source
from modpose.errors import InputError

NAMES = ("the images", "poses.star")


def star(names: list[str]) -> Particles:
    return Particles(pd.DataFrame({"rlnImageName": names}), None, "star", "p.star")


def cs(**columns: Any) -> Particles:
    return Particles(
        pd.DataFrame({name.replace("__", "/"): v for name, v in columns.items()}),
        None,
        "cs",
        "p.cs",
    )


def images(*keys: str) -> RowIdentity:
    return RowIdentity.of("image", np.array(keys, dtype=object))


def test_leading_zeros_and_the_way_a_path_is_written_do_not_matter() -> None:
    one = identities_of(star(["000001@a/./b.mrcs", "2@a\\b.mrcs", "3@>a//b.mrcs "]))[0]
    assert one.kind == "image"
    assert one.key.tolist() == ["1@a/b.mrcs", "2@a/b.mrcs", "3@a/b.mrcs"]
    assert normalised("x/../y.mrcs") == "y.mrcs"


def test_a_table_of_cryosparc_has_its_uids_first_and_its_images_second() -> None:
    table = cs(
        uid=np.array([7, 2**64 - 1], np.uint64), blob__path=["J1/a.mrc"] * 2, blob__idx=[0, 5]
    )
    uid, image = identities_of(table)
    assert uid.kind == "uid" and uid.key.tolist() == [7, 2**64 - 1]
    assert image.key.tolist() == ["1@J1/a.mrc", "6@J1/a.mrc"]


@pytest.mark.parametrize("uid", [[0, 0, 0], [1.5, 2.0, 3.0], [2.0**60, 2.0**61, 1.0]])
def test_a_uid_that_identifies_nothing_is_none(uid: list[float]) -> None:
    assert identities_of(cs(uid=np.array(uid))) == ()


def test_uids_that_share_nothing_give_way_to_the_images() -> None:
    blob = {"blob__path": ["a.mrc"] * 2, "blob__idx": [0, 1]}
    pair = common_identity(
        identities_of(cs(uid=np.array([1, 2]), **blob)),
        identities_of(cs(uid=np.array([3, 4]), **blob)),
    )
    assert pair is not None and pair[0].kind == "image"


def test_rows_in_another_order_are_found() -> None:
    order = np.random.default_rng(0).permutation(50)
    keys = np.array([f"{i + 1}@s.mrcs" for i in range(50)], dtype=object)
    rows = match_rows(RowIdentity.of("image", keys), RowIdentity.of("image", keys[order]))
    np.testing.assert_array_equal(order[rows], np.arange(50))
    uid = RowIdentity.of("uid", np.arange(50, dtype=np.uint64) + 2**63)
    rows = match_rows(uid, uid.subset(order))
    np.testing.assert_array_equal(order[rows], np.arange(50))


def test_what_is_not_there_is_minus_one() -> None:
    rows = match_rows(images("1@s", "2@s", "9@t"), images("2@s", "3@s"))
    assert rows.tolist() == [-1, 0, -1]


def test_the_second_row_of_an_image_is_the_second_row_elsewhere() -> None:
    wanted = images("1@s", "2@s", "1@s", "2@s")
    assert wanted.occurrence.tolist() == [0, 0, 1, 1]
    assert match_rows(wanted, images("2@s", "2@s", "1@s", "1@s")).tolist() == [2, 0, 3, 1]


def test_an_image_once_here_and_four_times_there_is_refused() -> None:
    once, expanded = images("1@s", "2@s"), images(*["1@s"] * 4, *["2@s"] * 4)
    with pytest.raises(InputError, match="1@s is in 4 rows, but in 1 of the images"):
        match_rows(once, expanded, names=NAMES)
    with pytest.raises(InputError, match="which row belongs to which"):
        match_rows(expanded, once, names=NAMES)
    assert match_rows(expanded, once, per_image=True).tolist() == [0] * 4 + [1] * 4
    part = expanded.subset(np.array([6, 1]))
    assert match_rows(part, expanded, whole=False).tolist() == [6, 1]


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("a.mrcs", "Extract/job012/a.mrcs"),
        ("/old/project/Extract/job012/a.mrcs", "Extract/job012/a.mrcs"),
        ("/old/project/Extract/job012/a.mrcs", "/new/place/Extract/job012/a.mrcs"),
        ("C:/data/grid1/a.mrcs", "/mnt/disk/grid1/a.mrcs"),
        ("../grid1/a.mrcs", "/data/grid1/a.mrcs"),
        ("~/grid1/a.mrcs", "/home/me/grid1/a.mrcs"),
        ("/grid1/a.mrcs", "/data/grid1/a.mrcs"),
    ],
)
def test_a_moved_project_keeps_its_images(wanted: str, offered: str) -> None:
    assert match_stacks([wanted], [offered], NAMES, moved=True).tolist() == [0]
    assert match_stacks([offered], [wanted], NAMES, moved=True).tolist() == [0]
    is_end = not (wanted.startswith(("/old", "C:")) and offered.startswith(("/new", "/mnt")))
    assert match_stacks([wanted], [offered], NAMES).tolist() == ([0] if is_end else [-1])


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("gridA/a.mrcs", "gridB/a.mrcs"),
        ("Extract/job012/a.mrcs", "Extract/job034/a.mrcs"),
        ("/p/Extract/job012/Movies/a.mrcs", "/p/Extract/job034/Movies/a.mrcs"),
        ("/p/Extract/job012/Movies/a.mrcs", "/q/Extract/job034/Movies/a.mrcs"),
        ("/data/session1/Movies/a.mrcs", "/data/session2/Movies/a.mrcs"),
        ("a.mrcs", "A.mrcs"),
        ("a.mrcs", "aa.mrcs"),
    ],
)
def test_another_folder_is_another_stack(wanted: str, offered: str) -> None:
    for moved in (False, True):
        assert match_stacks([wanted], [offered], NAMES, moved=moved).tolist() == [-1]
        assert match_stacks([offered], [wanted], NAMES, moved=moved).tolist() == [-1]


def test_the_longest_common_end_counts_and_one_that_is_not_unique_is_refused() -> None:
    both = ["proj/gridA/a.mrcs", "proj/gridB/a.mrcs"]
    assert match_stacks(["gridB/a.mrcs", "gridA/a.mrcs"], both, NAMES).tolist() == [1, 0]
    with pytest.raises(
        InputError, match=r"gridA/a.mrcs and proj/gridB/a.mrcs both end like a.mrcs"
    ):
        match_stacks(["a.mrcs"], both, NAMES)
    with pytest.raises(InputError, match=r"a.mrcs could be proj/gridA/a.mrcs and proj/gridB/a"):
        match_stacks(both, ["a.mrcs"], NAMES)
    apart, two_moves = ["/x/g/a.mrcs", "/y/h/b.mrcs"], ["/u/g/a.mrcs", "/v/h/b.mrcs"]
    assert match_stacks(apart, two_moves, NAMES, moved=True).tolist() == [0, -1]


def test_a_renamed_stack_is_the_same_where_the_caller_says_so() -> None:
    one, other = images("1@old.mrcs", "2@old.mrcs"), images("2@new.mrcs", "1@new.mrcs")
    assert match_rows(one, other).tolist() == [-1, -1]
    assert match_rows(one, other, renamed=True).tolist() == [1, 0]


def test_a_name_without_a_number_is_the_first_image_of_its_file() -> None:
    files = RowIdentity.of("file", np.array(["a.mrc", "b.mrc"], dtype=object))
    assert match_rows(images("1@b.mrc", "1@a.mrc"), files).tolist() == [1, 0]


def test_images_without_a_table_are_named_by_their_place(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(5, 8, 8)))
    source = open_source(tmp_path / "s.npy", index=np.array([3, 1]))
    (identity,) = identities_of(source.particles)
    assert identity.key.tolist() == ["4@s.npy", "2@s.npy"]
    assert identities_of(open_source(np.zeros((5, 8, 8))).particles) == ()


def test_many_rows_are_matched_in_little_time_and_memory() -> None:
    """A tenth of 10^6 rows, of which ten seconds and 2 GB are asked."""
    n = 100_000
    order = np.random.default_rng(0).permutation(n)
    names = np.array([f"{i % 100 + 1:06d}@Extract/job1/m{i // 100}.mrcs" for i in range(n)], object)
    moved = [name.replace("@", "@/data/project/") for name in names[order]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    rows = match_rows(identities_of(star(names.tolist()))[0], identities_of(star(moved))[0])
    assert time.process_time() - start < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    np.testing.assert_array_equal(order[rows], np.arange(n))


@pytest.mark.parametrize(
    "names",
    [
        ["000012@a.mrcs", "3@é b.mrcs", "99999999999@c@d"],
        ["1@a", "b"],
        ["0x1@a", "1@a"],
        ["1@", "2@a"],
        ["@a", "2@a"],
        ["１@a"],
    ],
)
def test_names_that_are_split_together_are_split_as_alone(names: list[str]) -> None:
    number, path = split_names(np.array(names, dtype=object), "here")
    for name, k, file in zip(names, number, path, strict=True):
        head, _, tail = name.partition("@")
        alone = head.isascii() and head.isdigit() and tail
        assert (k, file) == ((int(head), tail) if alone else (-1, name))
