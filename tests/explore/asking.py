"""Ask an ASGI application as a browser would, without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from modpose.explore.answers import application
from modpose.explore.guard import Guard, Scope
from modpose.explore.opened import OpenRun
from modpose.run import Run

TOKEN, PORT = "the-secret", 8765
HERE = f"http://127.0.0.1:{PORT}"


@dataclass
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def mask(self, n: int) -> NDArray[np.bool_]:
        bits = np.frombuffer(self.body, np.uint8)
        return np.unpackbits(bits, count=n, bitorder="little").astype(bool)


class Page:
    """The page of some runs."""

    def __init__(self, *runs: Run) -> None:
        self.runs = [OpenRun(run) for run in runs]
        self.app = Guard(application(self.runs), TOKEN, PORT)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] | None = None,
        token: str | None = TOKEN,
    ) -> Answer:
        """Ask for a path below the secret (without one: token None)."""
        if headers is None:
            headers = [("host", HERE[7:]), ("origin", HERE), ("sec-fetch-site", "same-origin")]
        path, _, query = path.partition("?")
        whole = f"/{path}" if token is None else f"/{token}/{path}"
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": unquote(whole),
            "raw_path": whole.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "http_version": "1.1",
            "scheme": "http",
        }
        return asyncio.run(self._ask(scope, body))

    async def _ask(self, scope: Scope, body: bytes) -> Answer:
        sent: list[Scope] = []

        left: list[Scope] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Scope:
            if not left:  # the browser keeps listening
                await asyncio.Event().wait()
            return left.pop()

        async def send(message: Scope) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]))
