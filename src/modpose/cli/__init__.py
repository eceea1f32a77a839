"""The command line: each command reads its options, calls the library once, and prints.

:mod:`modpose.cli.lazily` imports the library, so that ``modpose --help`` is fast.
"""

from __future__ import annotations

import copy
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from modpose.cli import (
    abinitio,
    affinity,
    analysis,
    averaging,
    experiment,
    exploring,
    fitting,
    jobs,
    maps,
    picking,
    runs,
    simulate,
    simulate_volumes,
)
from modpose.cli.arguments import app
from modpose.cli.signals import Interrupted, exit_code, signals_interrupt
from modpose.errors import InputError, TrainingError

__all__ = [
    "abinitio",
    "affinity",
    "analysis",
    "app",
    "averaging",
    "experiment",
    "exploring",
    "fitting",
    "jobs",
    "main",
    "maps",
    "picking",
    "run_and_exit",
    "runs",
    "simulate",
    "simulate_volumes",
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit with 0, 1 (training failed), 2 (bad input) or 130 (Ctrl-C).

    SIGTERM and SIGHUP act like Ctrl-C, with exit codes 143 and 129.
    """
    run_and_exit(app, arguments)


def run_and_exit(
    command: typer.Typer, arguments: list[str] | None = None, prog_name: str = "modpose"
) -> None:
    """Run a typer application with the exit codes and messages of :func:`main`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ["MPLBACKEND"] = "agg"  # a notebook names one that this environment may not have
    try:
        with signals_interrupt(), _notes_on_stderr():
            verb = _only(command, arguments)
            code = verb(arguments or ["--help"], prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
    except (Exception, Interrupted) as caught:
        # typer makes an Abort of an EOFError, which is a mistake of ours and no interruption
        error = caught.__cause__ or caught if isinstance(caught, typer.Abort) else caught
        code, sentence = _explain(error)
        if sentence is None:
            raise error from None
        with suppress(OSError):  # the terminal may be gone
            print(f"modpose: {sentence}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _only(command: typer.Typer, arguments: list[str]) -> typer.Typer:
    """Keep the verb that is asked for: making the options of all verbs takes time."""
    asked = arguments[0] if arguments else None
    verbs = [
        one
        for one in command.registered_commands
        if asked is not None and asked == (one.name or getattr(one.callback, "__name__", None))
    ]
    if len(verbs) != 1 or len(command.registered_commands) == 1:
        return command
    alone = copy.copy(command)
    alone.registered_commands, alone.registered_groups = verbs, []
    if alone.registered_callback is None:
        alone.callback()(lambda: None)  # so that the verb is still named
    return alone


class _Once(logging.Filter):
    """Show each note once per command, also if a file is opened twice."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self.said
        self.said.add(text)
        return new


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Print the library's notes (a file unpacked, a path guessed) on stderr."""
    logger, handler = logging.getLogger("modpose"), logging.StreamHandler(sys.stderr)
    handler.addFilter(_Once())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _explain(error: BaseException) -> tuple[int, str | None]:
    """Return the exit code and the message for the user; None for a bug in modpose."""
    if isinstance(error, typer.TyperException):
        near = getattr(error, "possibilities", None) or []  # of an unknown option
        hint = f". Did you mean {' or '.join(near)}?"
        message = f"{error.message}{hint}" if near else error.format_message()
        return 2, message.replace("Value error, ", "")  # of the library that typer checks with
    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, TrainingError):
        return 1, str(error)
    if isinstance(error, Interrupted):
        return exit_code(error), "interrupted"
    if isinstance(error, BrokenPipeError):
        return 1, "the reader of the output went away"
    full = "the disk is full, free some space and repeat"
    if "No space left on device" in str(error):  # writers other than Python's raise their own types
        return 2, full
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        quota = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return 2, f"{where}{full if quota else (error.strerror or 'cannot be used').lower()}"
    return 1, None
