"""Sums in shared memory: three threads stand for three processes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from modpose import ranks, shared_memory
from modpose.errors import TrainingError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.complex64])
@pytest.mark.parametrize("count", [1, 2, 1000, 5001])
def test_all_get_the_sum(
    dtype: torch.dtype, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    monkeypatch.setattr(shared_memory, "ROW", 1 << 14)  # the longest tensor takes several parts
    path = shared_memory.make_file(3)
    parts = [(rank + 1) * torch.arange(count).to(dtype) for rank in range(3)]
    expected = 6 * torch.arange(count).to(dtype)
    meeting = threading.Barrier(3, timeout=60)

    def process(rank: int) -> None:
        rows = shared_memory.open_file(path, 3)
        assert rows is not None
        for _ in range(2):
            own = [parts[rank].clone(), torch.ones(2, 3, dtype=dtype)]
            shared_memory.add_up(own, rows, rank, lambda: meeting.wait() and None)
            found[rank] = own

    found: dict[int, list[torch.Tensor]] = {}
    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for long, short in found.values():
        assert torch.equal(long, expected)
        assert torch.equal(short, torch.full((2, 3), 3, dtype=dtype))


def test_memory_of_another_machine_or_without_room_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    assert shared_memory.open_file(str(tmp_path / "elsewhere"), 2) is None
    monkeypatch.setattr(shared_memory, "ROW", 1 << 60)
    assert shared_memory.make_file(2) == ""
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "missing")
    assert shared_memory.make_file(2) == ""
    assert shared_memory.open_file("", 2) is None


def test_no_file_is_left_where_a_process_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    monkeypatch.setattr(shared_memory, "ROW", 1 << 14)

    def lost(part: object) -> list[object]:
        raise TrainingError("process 1 of 2 has lost the others")

    monkeypatch.setattr(ranks, "gathered", lost)
    with pytest.raises(TrainingError):
        ranks._shared_rows(2)
    assert not list(tmp_path.iterdir())
