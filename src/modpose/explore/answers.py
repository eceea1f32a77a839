"""What the local page's server answers, behind :class:`modpose.explore.guard.Guard`.

Columns and selections travel as binary numbers; a selection has one bit an image.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Route

from modpose.errors import InputError
from modpose.explore.opened import OpenRun
from modpose.explore.page import CONTENT_TYPES, html, served_file
from modpose.files.text import number, whole_number

Answer = Callable[[OpenRun, Request], Response]


def application(runs: Sequence[OpenRun]) -> Starlette:
    """Make the ASGI application that answers for some runs (without a guard)."""

    def about(request: Request) -> Response:
        return JSONResponse([run.about() for run in runs])

    def of_run(answer: Answer) -> Callable[[Request], Response]:
        def answered(request: Request) -> Response:
            which = request.path_params["run"]
            if which >= len(runs):
                return PlainTextResponse("refused\n", 404)
            try:
                return answer(runs[which], request)
            except InputError as error:
                return PlainTextResponse(str(error), 400)

        return answered

    async def save(request: Request) -> Response:
        bits = await request.body()
        keep = of_run(lambda run, request: JSONResponse(_save(run, request, bits)))
        return await run_in_threadpool(keep, request)

    def json(answer: Callable[[OpenRun, Request], Any]) -> Callable[[Request], Response]:
        return of_run(lambda run, request: JSONResponse(answer(run, request)))

    def raw(
        answer: Callable[[OpenRun, Request], bytes], kind: str = "application/octet-stream"
    ) -> Callable[[Request], Response]:
        return of_run(lambda run, request: Response(answer(run, request), media_type=kind))

    one = "/runs/{run:int}"
    selection = one + "/selections/{name}"
    return Starlette(
        routes=[
            Route("/", _page),
            Route("/page/{name:path}", _static),
            Route("/runs", about),
            Route(one + "/input", json(lambda run, _: run.input_columns())),
            Route(one + "/formats", json(lambda run, _: run.formats())),
            Route(one + "/column", raw(_column)),
            Route(one + "/picture", raw(_picture, "image/png")),
            Route(one + "/place", raw(_place, "image/png")),
            Route(one + "/slices", raw(_slices, "image/png")),
            Route(one + "/surface", raw(_surface)),
            Route(one + "/path", json(_path)),
            Route(one + "/where", raw(_where)),
            Route(one + "/selections", json(_selections)),
            Route(selection, raw(_selection), methods=["GET"]),
            Route(selection, save, methods=["PUT"]),
            Route(selection, json(_remove), methods=["DELETE"]),
            Route(selection + "/write", json(_write), methods=["POST"]),
            Route(one + "/written/{file}", of_run(_download)),
        ]
    )


def _page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(12)
    policy = (  # regl, within the vendored component, compiles its drawing commands: eval
        f"default-src 'none'; script-src 'self' 'unsafe-eval' 'nonce-{nonce}'; "
        "style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; worker-src blob:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html(nonce), headers={"content-security-policy": policy})


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    content = served_file(name)
    if content is None:
        return PlainTextResponse("refused\n", 404)
    return Response(content, media_type=CONTENT_TYPES[name.rpartition(".")[2]])


def _column(run: OpenRun, request: Request) -> bytes:
    return run.column(request.query_params.get("name", "")).astype("<f4").tobytes()


def _picture(run: OpenRun, request: Request) -> bytes:
    row = whole_number(request.query_params.get("row", ""))
    return run.pictures.image(-1 if row is None else row, request.query_params.get("kind", ""))


def _place(run: OpenRun, request: Request) -> bytes:
    pose = _numbers(request, "pose") if "pose" in request.query_params else None
    return run.pictures.place(_numbers(request, "z"), pose)


def _slices(run: OpenRun, request: Request) -> bytes:
    return run.pictures.slices(_numbers(request, "z"))


def _surface(run: OpenRun, request: Request) -> bytes:
    height = number(request.query_params.get("height", ""))
    return run.pictures.surface(_numbers(request, "z"), np.nan if height is None else height)


def _path(run: OpenRun, request: Request) -> list[list[float]]:
    ends = [_numbers(request, "from"), _numbers(request, "to")]
    if len(ends[0]) != len(ends[1]):
        raise InputError.of("path", "the ends", "of different sizes", "two places")
    steps = whole_number(request.query_params.get("steps", ""))
    found: list[list[float]] = run.path(np.array(ends), steps or 0).tolist()
    return found


def _numbers(request: Request, name: str) -> NDArray[np.float64]:
    """Read a list of numbers from a query, NaN for what is none."""
    values = [number(part) for part in request.query_params.get(name, "").split(",")]
    return np.array([np.nan if value is None else value for value in values])


def _where(run: OpenRun, request: Request) -> bytes:
    return _bits(run.where(request.query_params.get("expression", "")))


def _selections(run: OpenRun, request: Request) -> list[dict[str, Any]]:
    return [asdict(selection) for selection in run.selections.all()]


def _selection(run: OpenRun, request: Request) -> bytes:
    return _bits(run.selections.mask(request.path_params["name"]))


def _save(run: OpenRun, request: Request, bits: bytes) -> dict[str, Any]:
    n = len(run.latents)
    if len(bits) != -(-n // 8):
        raise InputError.of("selection", "the size", f"{len(bits)} bytes", f"{-(-n // 8)}")
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=n, bitorder="little").astype(bool)
    how = request.query_params.get("how", "")[:1000]
    return asdict(run.selections.save(request.path_params["name"], mask, how))


def _remove(run: OpenRun, request: Request) -> dict[str, Any]:
    run.selections.remove(request.path_params["name"])
    return {}


def _write(run: OpenRun, request: Request) -> dict[str, Any]:
    suffix = request.query_params.get("suffix", "")
    path, notes = run.write(request.path_params["name"], suffix)
    return {"path": str(path), "file": path.name, "notes": notes}


def _download(run: OpenRun, request: Request) -> Response:
    path = run.written(request.path_params["file"])
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(path.name)}"}
    return FileResponse(path, headers=headers)


def _bits(mask: NDArray[np.bool_]) -> bytes:
    return np.packbits(mask, bitorder="little").tobytes()
