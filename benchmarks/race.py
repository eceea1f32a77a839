"""Contestants that take turns, so that all meet the same weather."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch

from benchmarks import machine


class SO3Normal(NamedTuple):
    """What a contestant does in its turn, and the number of images in it."""

    work: Callable[[], object]
    images: int


def clock(threads: int) -> Callable[[], float]:
    """Return the clock that fits: processor time of a single thread, or else wall-clock time.

    Others' programs on the same machine do not count in the processor time.
    """
    return time.process_time if threads == 1 else time.perf_counter


def race(
    contestants: Mapping[str, Callable[[], SO3Normal]],
    *,
    repetitions: int,
    warm_up: int,
    threads: int,
) -> dict[str, list[float]]:
    """Let every contestant take its turns; milliseconds per image for each repetition.

    Each has a process of its own, in which it is made, so that none profits from another's memory.
    """
    context = machine.fresh_processes()
    running: list[tuple[str, Connection]] = []
    milliseconds: dict[str, list[float]] = {name: [] for name in contestants}
    with ExitStack() as stack:
        for name, make in contestants.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_take_turns, args=(theirs, make, threads), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join, 30)
            stack.callback(ours.close)
            running.append((name, ours))
        for _, connection in running:
            connection.recv()  # ready: nobody is still importing when the race starts
        for repetition in range(warm_up + repetitions):
            for name, connection in running:
                connection.send("go")
                taken = connection.recv()
                if repetition >= warm_up:
                    milliseconds[name].append(1000 * taken)
    return milliseconds


def _take_turns(connection: Connection, make: Callable[[], SO3Normal], threads: int) -> None:
    """Take a turn and say how many seconds per image it took, as often as asked."""
    torch.set_num_threads(threads)
    turn, now = make(), clock(threads)
    connection.send("ready")
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        start = now()
        turn.work()
        connection.send((now() - start) / turn.images)


def table(taken: Mapping[str, list[float]], base: str, what: str) -> str:
    """Lay out medians, ranges, and how much faster each is than ``base``."""
    first = statistics.median(taken[base])
    lines = [f"{what:34} {'ms per image':>11} {'(range)':>18} {f'{base} / this':>16}"]
    for name, values in taken.items():
        middle = statistics.median(values)
        spread = f"({min(values):.2f} - {max(values):.2f})"
        lines.append(f"{name:34} {middle:11.2f} {spread:>18} {first / middle:15.1f}x")
    return "\n".join(lines)
