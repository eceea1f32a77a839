"""SIGTERM and SIGHUP end a command like Ctrl-C: finished work is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import typer


class Interrupted(BaseException):
    """A signal asks the process to end; typer does not catch this exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGINT, SIGTERM and SIGHUP, unless ignored (as by nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: handler for n in numbers if (handler := signal.getsignal(n)) in usual}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resumable(how: Callable[[], str]) -> Iterator[None]:
    """Print how to continue after Ctrl-C, SIGTERM or SIGHUP, and exit with their codes."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as interruption:
        with suppress(OSError):  # the terminal may be gone
            typer.echo(f"interrupted; {how()}", err=True)
        raise typer.Exit(exit_code(interruption)) from None


def exit_code(interruption: BaseException) -> int:
    """Return 128 and the number of the signal: 130 for Ctrl-C."""
    number = interruption.number if isinstance(interruption, Interrupted) else signal.SIGINT
    return 128 + number


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
