"""A computation in parts that are files, for processes that need not run at the same time.

Each of N processes runs the same code up to a step that needs the parts of all.  There it writes
its own part into a folder, and ends, or waits.  Started again when all parts are there, it reads
them instead of computing, and goes on to the next such step.  Another process adds them up.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.files.text import in_shell
from modpose.files.writing import replace_atomically
from modpose.limits import LONGEST_MINUTES, check_real

Columns = tuple[Tensor, ...]
MOST = 4096
"""Largest number of parts."""
LOOKS_EVERY = 0.5
"""Seconds between two looks for the parts of others."""


class Waiting(Exception):  # noqa: N818  (no error)
    """The parts of other processes are not there yet; that of this one is done."""


@dataclass(frozen=True)
class Shard:
    """One of several processes that share a computation by files.

    Attributes
    ----------
    number
        From 1; 0 for the one that adds up what the others have written, and computes nothing, as
        ``modpose merge``.
    of
        Number of the others.
    wait_minutes
        How long it waits for the parts of the others before it ends.
    """

    number: int
    of: int
    wait_minutes: float = 0.0

    def __post_init__(self) -> None:
        if not (1 <= self.of <= MOST and 0 <= self.number <= self.of):
            text = f"{self.number}/{self.of}"
            raise InputError.of("--shard", "the part", text, "K/N with 1 <= K <= N, such as 3/8")
        check_real("--wait", "the time", self.wait_minutes, 0, LONGEST_MINUTES)

    @classmethod
    def parse(cls, text: str, wait_minutes: float = 0.0) -> Shard:
        """Read K/N, or 0/N for the one that adds up."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None:
            raise InputError.of("--shard", "the part", text, "K/N with 1 <= K <= N, such as 3/8")
        return cls(int(match[1]), int(match[2]), wait_minutes)


class Parts:
    """The files of a computation in parts.

    Parameters
    ----------
    folder
        Where they are.
    shard
        Which process this is.
    wanted
        What is computed from what, for JSON: parts of another computation are refused.
    """

    def __init__(self, folder: Path, shard: Shard, wanted: dict[str, object]) -> None:
        self.folder, self.shard = folder, shard
        text = json.dumps(wanted | {"shards": shard.of}, sort_keys=True)
        self._identity = hashlib.sha256(text.encode()).hexdigest()
        self._stage, self._step, self._added = "start", 0, 0

    def enter(self, stage: str) -> None:
        """Begin a stage, from which a process may start; steps are counted within it."""
        self._stage, self._step = stage, 0

    def meet(
        self, make: Callable[[], Columns], join: Callable[[list[Columns]], Columns]
    ) -> Columns:
        """Return the joined parts of all processes; ``make`` gives that of this one.

        Raises
        ------
        Waiting
            If some are not there yet.
        InputError
            If a file is damaged or belongs to another computation, or there is nothing to add up.
        """
        self._step += 1
        name = f"{self._stage}-{self._step:03d}"
        whole = self.folder / f"{name}.safetensors"
        each = [self.folder / f"{name}_{k}of{self.shard.of}.safetensors" for k in self._numbers]
        if self.shard.number and not whole.is_file():
            own = each[self.shard.number - 1]
            if self._read(own) is None:
                self._write(own, make())
        until = time.monotonic() + 60 * self.shard.wait_minutes
        while (found := self._found(whole, each, join)) is None:
            if time.monotonic() >= until:
                raise self._waiting(name, [path.is_file() for path in each])
            time.sleep(LOOKS_EVERY)
        if not self.shard.number and not whole.is_file():
            self._write(whole, found)
            self._added += 1
        if not self.shard.number:
            for path in each:
                path.unlink(missing_ok=True)
        return found

    @property
    def _numbers(self) -> Sequence[int]:
        return range(1, self.shard.of + 1)

    def _found(
        self, whole: Path, each: list[Path], join: Callable[[list[Columns]], Columns]
    ) -> Columns | None:
        """Read the sum, or join the parts; None if some are missing."""
        if whole.is_file() or not all(path.is_file() for path in each):
            return self._read(whole)
        parts = [self._read(path) for path in each]
        known = [part for part in parts if part is not None]
        return join(known) if len(known) == len(parts) else self._read(whole)

    def _waiting(self, name: str, there: list[bool]) -> Exception:
        """Make the message that says which shard or command is needed next."""
        place, number, of = self.folder.parent, self.shard.number, self.shard.of
        if number:
            return Waiting(
                f"shard {number} of {of} has done its part of step {name}; when all have, run "
                f"modpose merge {in_shell(place)}, then start the shards again"
            )
        missing = ", ".join(
            str(k) for k, here in zip(self._numbers, there, strict=True) if not here
        )
        if self._added:
            steps = "1 step" if self._added == 1 else f"{self._added} steps"
            return Waiting(f"added up {steps}; start the {of} shards again, for step {name}")
        return InputError(
            f"{place}: of step {name}, the parts of these shards are missing: {missing} (of {of}); "
            "start them again, and then modpose merge"
        )

    def _write(self, path: Path, columns: Columns) -> None:
        from safetensors.torch import save

        tensors = {str(k): column.detach().cpu().contiguous() for k, column in enumerate(columns)}
        raw = save(tensors, {"computation": self._identity})
        replace_atomically(path, lambda file: file.write(raw), overwrite=True)

    def _read(self, path: Path) -> Columns | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                names = sorted(file.keys(), key=int)
                columns = tuple(file.get_tensor(name) for name in names)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError):
            raise InputError(
                f"{path}: damaged, expected a part of an alignment; remove it"
            ) from None
        if metadata.get("computation") != self._identity:
            raise InputError(
                f"{path}: a part of another alignment: of other volumes, settings or number of "
                "shards"
            )
        return columns


def joined_rows(parts: list[Columns]) -> Columns:
    """Put columns of rows below each other."""
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def added(parts: Iterable[Columns]) -> Columns:
    """Add up columns."""
    total: Columns | None = None
    for part in parts:
        total = part if total is None else tuple(a + b for a, b in zip(total, part, strict=True))
    assert total is not None
    return total
