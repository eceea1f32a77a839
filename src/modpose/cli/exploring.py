"""The local page of runs: explore."""
# ruff: noqa: D301  (the backspace before examples keeps their line breaks)

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from modpose.cli.answer import Json, answer
from modpose.cli.arguments import DataDir, Device, InputAgain, Overwrite, app, needs
from modpose.cli.lazily import lazily
from modpose.cli.signals import Interrupted
from modpose.cli.whole import whole_run
from modpose.limits import check_whole

with lazily():
    from modpose.explore import folder as exported
    from modpose.explore import server


@app.command()
def explore(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    port: Annotated[int, typer.Option(help="Port on this machine; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a folder that opens without a server, and end."),
    ] = None,
    moved: InputAgain = None,
    datadir: DataDir = None,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show runs in a local page: look at images, select, filter, decode, write selections.

    The page is served to this machine alone, at an address that holds a secret.  Selections are
    kept in RUN/selections.  Ctrl-C ends it.

    --export writes the page as a folder instead: all columns, the selections, and pictures of up to
    2,000 images and 100 places of content.

    \b
    modpose explore run
    modpose explore run --port 8800 --no-browser
    modpose explore run --export for_a_colleague
    """
    check_whole("explore", "--port", port, 0, 65_535)
    for option in ("port", "browser"):
        needs(context, option, "a page that is served, not --export", export is None)
    needs(context, "overwrite", "--export", export is not None)
    opened = [whole_run(folder, moved, datadir) for folder in folders]
    if export is not None:
        page = exported.write_folder(opened, export, overwrite=overwrite, device=device)
        answer({"written": [page]}, [f"wrote {page}"], as_json)
        return

    def say(address: str) -> None:
        answer({"address": address}, [address, "Ctrl-C ends it."], as_json)

    try:
        server.explore(opened, port=port, browser=browser, ready=say, device=device)
    except Interrupted as interruption:
        if interruption.number != signal.SIGINT:
            raise
