"""Commands, with what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from modpose.errors import InputError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
END_OF_LOG = 400
"""Characters of a log that a message shows."""


@dataclass(frozen=True)
class Cost:
    """What commands cost.

    Attributes
    ----------
    processor_s, clock_s
        Seconds, summed over the commands and what they start.
    memory_gb
        Largest resident memory of one process.
    """

    processor_s: float = 0.0
    clock_s: float = 0.0
    memory_gb: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Add seconds; keep the larger memory."""
        return Cost(
            self.processor_s + other.processor_s,
            self.clock_s + other.clock_s,
            max(self.memory_gb, other.memory_gb),
        )


def measured(command: Sequence[str], log: Path) -> Cost:
    """Run a command on one thread, its output in a log; raise InputError if it fails."""
    start = time.monotonic()
    threads = dict.fromkeys(THREADS, "1")
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **threads}
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        end = " ".join(log.read_text(errors="replace")[-END_OF_LOG:].split())
        raise InputError(f"{' '.join(map(str, command[:3]))} failed; {log} ends: {end}")
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 2**20)


def once(done: Path, work: Callable[[], Cost]) -> Cost:
    """Do work unless ``done`` tells what it cost; keep there what it cost."""
    if done.is_file():
        return Cost(**json.loads(done.read_text()))
    done.parent.mkdir(parents=True, exist_ok=True)
    cost = work()
    done.write_text(json.dumps(asdict(cost)))
    return cost
