"""Serve the local page of runs to this machine, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.explore.guard import Guard
from modpose.explore.opened import OpenRun
from modpose.files.extras import extra

if TYPE_CHECKING:
    from modpose.run import Run


@on_its_device
def explore(
    runs: Sequence[Run],
    *,
    port: int = 0,
    browser: bool = True,
    ready: Callable[[str], object] = print,
    device: str | None = None,
) -> None:
    """Show runs in a local page until the process is interrupted.

    Parameters
    ----------
    runs
        One or more finished runs.
    port
        Port on 127.0.0.1; 0: a free one.
    browser
        Open the page in the user's browser.
    ready
        Called with the page's address, which holds a secret.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Raises
    ------
    InputError
        If a run cannot be shown, the port is taken, or starlette or uvicorn is not installed.
    """
    uvicorn = extra("uvicorn", "explore", "explore")
    extra("starlette", "explore", "explore")
    from modpose.explore.answers import application

    opened = [OpenRun(run) for run in runs]
    token = secrets.token_urlsafe(24)
    with _bound(port) as place, TemporaryDirectory(prefix="modpose-") as private:
        taken = place.getsockname()[1]
        app = Guard(application(opened), token, taken)
        settings = uvicorn.Config(
            app, log_level="warning", lifespan="off", ws="none", access_log=False
        )
        address = f"http://127.0.0.1:{taken}/{token}/"
        ready(address)
        for one in opened:
            threading.Thread(target=_prepare, args=(one,), daemon=True).start()
        if browser:
            webbrowser.open(_way_in(Path(private), address))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[place])


def _bound(port: int) -> socket.socket:
    place = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", port))
        place.listen(128)  # from here on the page can be asked for; the server answers later
    except (OSError, OverflowError):
        place.close()
        raise InputError.of("explore", "--port", f"{port}, which is taken", "a free port") from None
    return place


def _way_in(folder: Path, address: str) -> str:
    """Write a private file that leads to the page, so that no command line shows the address."""
    path = folder / "open.html"
    path.touch(mode=0o600)
    path.write_text(f'<meta http-equiv="refresh" content="0; url={address}">')
    return path.as_uri()


def _prepare(run: OpenRun) -> None:
    with suppress(InputError):  # said again, to the user, when a picture is asked for
        run.pictures.prepare()
