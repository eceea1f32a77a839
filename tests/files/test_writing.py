"""Several files are written whole or not at all, and never over an input."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from modpose.errors import InputError
from modpose.files.writing import (
    all_or_nothing,
    check_outputs,
    refuse_to_replace,
    remove_dead_leftovers,
    replace_atomically,
    temporary_name,
)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep"
    with all_or_nothing() as place:
        place(out / "a.txt").write_text("a")
        place(out / "sub" / "b.txt").write_text("b")
        assert not list(out.glob("*.txt"))
    assert everything(tmp_path) == {"new/deep/a.txt": b"a", "new/deep/sub/b.txt": b"b"}


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def half() -> None:
        with all_or_nothing() as place:
            place(tmp_path / "a.txt").write_text("new")
            place(tmp_path / "made" / "b.txt").write_text("b")
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        half()
    assert everything(tmp_path) == {"a.txt": b"old"}
    assert not (tmp_path / "made").exists()


def test_a_move_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).write_text("old")
    move = Path.replace

    def fails_at_b(self: Path, target: Path) -> Path:
        if target == tmp_path / "b" and self.parent.name != ".replaced":
            raise OSError(5, "Input/output error")
        return move(self, target)

    def write_two() -> None:
        with all_or_nothing() as place:
            for name in "ab":
                place(tmp_path / name).write_text("new")
            place.remove(tmp_path / "c")

    monkeypatch.setattr(Path, "replace", fails_at_b)
    with pytest.raises(InputError, match="Input/output error"):
        write_two()
    assert everything(tmp_path) == dict.fromkeys("abc", b"old")


def test_what_an_earlier_call_wrote_goes_at_the_end(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).write_text("old")
    with all_or_nothing() as place:
        place(tmp_path / "1").write_text("new")
        place.remove(tmp_path / "1")
        place.remove(tmp_path / "2")
    assert everything(tmp_path) == {"1": b"new", "3": b"old"}


def test_a_killed_process_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("old")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from modpose.files.writing import all_or_nothing\n"
        "with all_or_nothing() as place:\n"
        "    for name in ('a.txt', 'b.txt'):\n"
        "        place(Path(sys.argv[1]) / name).write_text('new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["b.txt"]
    assert len(list(tmp_path.iterdir())) == 2
    with all_or_nothing() as place:
        place(tmp_path / "c.txt").write_text("c")
    assert everything(tmp_path) == {"b.txt": b"old", "c.txt": b"c"}


def test_writers_at_the_same_time_leave_the_files_of_one(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from modpose.files.writing import all_or_nothing\n"
        "while time.time() < float(sys.argv[3]):\n"
        "    pass\n"
        "for _ in range(20):\n"
        "    with all_or_nothing() as place:\n"
        "        for k in range(5):\n"
        "            place(Path(sys.argv[1]) / f'{k}.txt').write_text(sys.argv[2])\n"
    )
    start = str(time.time() + 0.5)
    arguments = [sys.executable, "-c", script, str(tmp_path)]
    both = [subprocess.Popen([*arguments, name, start]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    found = everything(tmp_path)
    assert set(found) == {f"{k}.txt" for k in range(5)}
    assert len(set(found.values())) == 1


def test_leftovers_of_the_living_and_of_other_machines_stay(tmp_path: Path) -> None:
    mine = temporary_name("a")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = mine.replace(str(os.getpid()), str(ended.pid))
    elsewhere = dead.replace("@", "@elsewhere-")
    of_the_user = ("drawing.part", ".notes.part", ".1.part")
    for name in (mine, dead, elsewhere, f".b.{ended.pid}.part", *of_the_user):
        (tmp_path / name).write_text("")
    remove_dead_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {mine, elsewhere, *of_the_user}


def test_an_output_that_is_there_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (tmp_path / "a", tmp_path / "dangling"):
        with pytest.raises(InputError, match=r"already exists; --overwrite"):
            refuse_to_replace([tmp_path / "b", path], overwrite=False)
        with pytest.raises(InputError, match=r"already exists; --overwrite"):
            replace_atomically(path, lambda file: file.write(b""))
    refuse_to_replace([tmp_path / "a"], overwrite=True)
    assert (tmp_path / "a").read_text() == "mine"


def test_an_input_is_no_output_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    stack = tmp_path / "data" / "stack.mrcs"
    stack.write_text("")
    (tmp_path / "link.mrcs").symlink_to(stack)
    (tmp_path / "hard.mrcs").hardlink_to(stack)
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    same = ("data/stack.mrcs", "data/../data/stack.mrcs", "link.mrcs", "hard.mrcs",
            "linked/stack.mrcs")  # fmt: skip
    for name in same:
        with pytest.raises(InputError, match="is an input of this command"):
            check_outputs([tmp_path / name], True, [tmp_path / "gone", stack])
    check_outputs([tmp_path / "data" / "other.mrcs"], True, [stack])
    with pytest.raises(InputError, match="its folder is an input"):
        check_outputs([tmp_path / "linked" / "other.mrcs"], True, [tmp_path / "data"])
    check_outputs([tmp_path / "data" / "latents.csv"], True, [tmp_path / "data"])


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is a file, expected a folder"):
        check_outputs([tmp_path / "file" / "deep" / "a.csv"])
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        check_outputs([tmp_path / "folder"], overwrite=True)


def test_a_disk_that_fills_while_torch_saves_is_named(tmp_path: Path) -> None:
    class Full:
        """The first part fits."""

        def __init__(self, file: BinaryIO) -> None:
            self.file, self.left = file, 2000

        def write(self, part: bytes) -> int:
            self.left -= len(part)
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(part)

    state = {"weights": torch.zeros(10_000)}
    with pytest.raises(InputError, match="not writable \\(No space left on device"):
        replace_atomically(tmp_path / "state", lambda file: torch.save(state, Full(file)))
    assert not any(tmp_path.iterdir())


def test_a_file_of_several_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError) as caught, all_or_nothing() as place:
        replace_atomically(place(tmp_path / "new" / "open.mrcs"), write)
    assert str(caught.value).startswith(f"{tmp_path / 'new' / 'open.mrcs'}: not writable")
    assert not any(tmp_path.iterdir())


def test_an_error_of_a_writer_is_not_one_of_the_disk(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise RuntimeError("wrong")

    with pytest.raises(RuntimeError, match="wrong"):
        replace_atomically(tmp_path / "state", write)
