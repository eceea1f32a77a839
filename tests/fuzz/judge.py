"""Judge how a reader answers a damaged file: by a good sentence, or by what is right."""

from __future__ import annotations

import resource
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modpose.errors import InputError
from tests.fuzz.mutators import mutate

SECONDS, GIBIBYTES = 10, 2
LONGEST, LINES = 360, 3
LIBRARY_WORDS = (
    "NoneType",
    "Traceback",
    "object has no attribute",
    "cannot unpack",
    "\\x",
    "is b'",
    "codec can't",
)


@dataclass(frozen=True)
class Seed:
    """A good file, and how what was damaged is wrapped (compressed, zipped) afterwards."""

    data: bytes
    wrap: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True)
class Format:
    """One format to damage.

    Attributes
    ----------
    name
        What the counts call it; the target of ``--only``.
    file
        The name of the damaged file, in a folder of its own.
    seeds
        Good files.
    ours
        Reads the file as a user does, pixels and all; what it returns is compared.
    independent
        Reads the same with another program's reader; None if there is none.
    tokens
        Words of the format.
    prepare
        Puts what lies beside the file into the folder, once.
    """

    name: str
    file: str
    seeds: Sequence[Seed]
    ours: Callable[[Path], Any]
    independent: Callable[[Path], Any] | None = None
    tokens: Sequence[bytes] = ()
    prepare: Callable[[Path], object] = field(default=lambda folder: None)


class _TooLongError(BaseException):
    """Not an Exception, so that no reader's ``except`` takes it for a bad file."""


@contextmanager
def _limits(seconds: int = SECONDS) -> Iterator[None]:
    """Bound the time and the address space of what is done within."""

    def late(*_: object) -> None:
        raise _TooLongError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = pages * resource.getpagesize() + GIBIBYTES * 2**30
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def bad_sentence(sentence: str, path: Path) -> str | None:
    """Say what is wrong with the sentence of an InputError; None if it is good."""
    text = sentence.replace(str(path), path.name).replace(f"{path.parent}/", "")
    if len(text) > LONGEST:
        return f"{len(text)} characters"
    if len(text.splitlines()) > LINES:
        return "more than three lines"
    if not all(c.isprintable() or c == "\n" for c in text):
        return "characters that cannot be printed"
    stores = [folder.name for folder in path.parents if folder.suffix == ".zarr"]
    if not any(name.split(".")[0] in text for name in (path.name, *stores)):
        return "the file is not named"
    return next((f"the words {word!r}" for word in LIBRARY_WORDS if word in text), None)


def judge(form: Format, path: Path) -> str | None:
    """Return what is wrong with the answer to one file; None if nothing is."""
    try:
        with _limits(), warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = form.ours(path)
    except InputError as error:
        wrong = bad_sentence(str(error), path)
        return wrong and f"bad sentence ({wrong}): {str(error)[:300]}"
    except _TooLongError:
        return f"no answer in {SECONDS} s"
    except (Exception, SystemExit) as error:
        return f"{type(error).__module__}.{type(error).__name__}: {str(error)[:200]}"
    if form.independent is None:
        return None
    try:
        with _limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = form.independent(path)
    except (Exception, _TooLongError) as error:
        return f"accepted, refused by the independent reader: {type(error).__name__} {error}"[:200]
    return None if same(ours, theirs) else "accepted, but the independent reader gives other values"


def same(a: Any, b: Any) -> bool:
    """Return whether two results are equal, element by element; NaN equals NaN."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    x, y = np.asarray(a), np.asarray(b)
    numbers = x.dtype.kind in "fc" and y.dtype.kind in "fc"
    return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=numbers))


def run(form: Format, folder: Path, n: int, seed: int) -> list[tuple[int, str]]:
    """Damage a format's seeds ``n`` times; return the number and the fault of each bad answer.

    Case ``i`` of a seed is the same whatever ``n`` is, so that one case can be made again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    form.prepare(folder)
    faults = []
    for i in range(n):
        path = make(form, folder, i, seed)
        fault = judge(form, path)
        if fault:
            faults.append((i, fault))
    return faults


def make(form: Format, folder: Path, case: int, seed: int) -> Path:
    """Write case number ``case``."""
    random = np.random.default_rng([seed, case, *form.name.encode()])
    chosen = form.seeds[int(random.integers(len(form.seeds)))]
    path = folder / form.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(chosen.wrap(mutate(chosen.data, random, form.tokens)))
    return path
