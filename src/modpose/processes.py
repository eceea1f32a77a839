"""Start the processes of one machine, or ask SLURM for those of many (see :mod:`modpose.ranks`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

from torch import distributed as dist

from modpose.errors import InputError, TrainingError

GRACE = 20.0
"""Seconds that processes get to end by themselves after another one has failed."""
PORT = 29500
"""Where processes of several machines meet, unless MASTER_PORT says otherwise."""
_engine: Any = dist  # what torch does not declare


def launch(command: Sequence[str], devices: int, nodes: int = 1) -> int:
    """Run a command in several processes; the first one's output is shown.

    Parameters
    ----------
    command
        A program that calls :func:`modpose.ranks.joined`, and its arguments.
    devices
        Number of processes on this machine.
    nodes
        Number of machines.  Within a job of SLURM, ``srun`` starts the processes of all; otherwise
        each machine has to do this, with its number in NODE_RANK and the first one's name in
        MASTER_ADDR.

    Returns
    -------
    Exit code of the first process that failed; 0 if none did.

    Raises
    ------
    InputError
        If the other machines are not known.
    TrainingError
        If a process was killed.  The others are ended.
    """
    known = os.environ
    if nodes > 1 and "SLURM_JOB_ID" in known and "NODE_RANK" not in known:
        words = [f"--nodes={nodes}", f"--ntasks-per-node={devices}", "--kill-on-bad-exit=1"]
        return _run(["srun", *words, *command])
    node = _number_of_node(nodes)
    address, port = "127.0.0.1", 0
    if nodes > 1:
        address, port = known["MASTER_ADDR"], int(known.get("MASTER_PORT", PORT))
    store = None if node else _store(address, port)
    shared = {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(store.port if store else port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 uses our store too
        "WORLD_SIZE": str(nodes * devices),
    }
    quiet = [local for local in range(devices) if node or local]
    with ExitStack() as files:
        said = {local: files.enter_context(tempfile.TemporaryFile()) for local in quiet}
        workers = [
            subprocess.Popen(
                command,
                env=known | shared | _ranks_of(node * devices + local, local),
                stdout=subprocess.DEVNULL if local in said else None,
                stderr=said.get(local),
            )
            for local in range(devices)
        ]
        try:
            while any(worker.poll() is None for worker in workers):
                if any(worker.poll() for worker in workers):
                    break
                time.sleep(0.05)
            return _code(workers, said)
        finally:
            _end(workers)


def _ranks_of(rank: int, local: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(local)}


def _run(command: Sequence[str]) -> int:
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise InputError(f"{command[0]}: there is no such program on this machine") from None


def _number_of_node(nodes: int) -> int:
    """Return the number of this machine, from 0."""
    if nodes == 1:
        return 0
    number = os.environ.get("NODE_RANK", "")
    if "MASTER_ADDR" not in os.environ or not number.isdecimal() or int(number) >= nodes:
        raise InputError(
            f"--nodes {nodes}: the other machines are not known, expected a job of SLURM, or "
            f"torchrun, or on each machine NODE_RANK (0 to {nodes - 1}) and MASTER_ADDR (the name "
            "of the first)"
        )
    return int(number)


def _store(address: str, port: int) -> Any:
    """Open the place where the processes meet."""
    try:
        return _engine.TCPStore(address, port, is_master=True, wait_for_workers=False)
    except RuntimeError:
        expected = "the name of this machine, and a port that is free"
        raise InputError.of("--nodes", "MASTER_ADDR", f"{address}:{port}", expected) from None


def _code(workers: list[subprocess.Popen[bytes]], said: Mapping[int, IO[bytes]]) -> int:
    """Return the common exit code; show the message of a failed process once."""
    failed = next((k for k, worker in enumerate(workers) if worker.poll()), None)
    if failed is None:
        return 0
    until = time.monotonic() + GRACE
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    codes = [worker.poll() or 0 for worker in workers]
    killed = next((k for k, code in enumerate(codes) if code < 0), None)
    if killed is not None:
        name = signal.Signals(-codes[killed]).name
        raise TrainingError(
            f"process {killed + 1} of {len(workers)} was killed ({name}) and the others have ended"
        )
    if failed in said and (0 in said or codes[0] in (0, 1)):  # otherwise the first has said it
        said[failed].seek(0)
        sys.stderr.write(said[failed].read().decode(errors="replace"))
    return codes[0] if codes[0] > 1 else codes[failed]


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    until = time.monotonic() + GRACE
    for worker in workers:
        try:
            worker.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
