"""Who may ask the local page's server: only the page itself, by its secret address."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Messages = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Messages, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
"""Names of this machine.  A request for another name came by a name server that was misled."""
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
LARGEST_BODY = 1 << 27
"""Bytes of a request: a mark for each of a thousand million images."""


class Guard:
    """Pass on requests that come from the page; refuse all others with 403 or 404.

    Parameters
    ----------
    app
        What answers, below the path ``/TOKEN``.
    token
        First part of the path; nothing is answered without it.
    port
        Port of the server, which the headers must name.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self.app, self.token, self.port = app, token, port
        self.hosts = {f"{host}:{port}" for host in HOSTS}

    async def __call__(self, scope: Scope, receive: Messages, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        status = self._refusal(scope)
        if status is not None:
            await _refuse(send, status)
            return

        async def with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        prefix = f"/{self.token}"
        inner = {**scope, "path": scope["path"][len(prefix) :], "root_path": prefix}
        inner.pop("raw_path", None)
        await self.app({**inner, "root_path": ""}, receive, with_headers)

    def _refusal(self, scope: Scope) -> int | None:
        """Return the status to refuse with; None if the request is the page's."""
        headers = _headers(scope["headers"])
        if any(len(values) > 1 for values in headers.values()):
            return 403
        value = {name: values[0] for name, values in headers.items()}
        if value.get("host") not in self.hosts:
            return 403
        origin = value.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            return 403
        followed = scope["method"] == "GET" and value.get("sec-fetch-dest") == "document"
        if value.get("sec-fetch-site", "none") not in ("none", "same-origin") and not followed:
            return 403
        if scope["method"] not in ("GET", "HEAD") and origin is None:
            return 403
        length = value.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > LARGEST_BODY:
            return 403
        first, slash, _ = scope["path"].removeprefix("/").partition("/")
        same = secrets.compare_digest(first.encode(), self.token.encode())
        return None if same and slash else 404


CHECKED = ("host", "origin", "sec-fetch-site", "sec-fetch-dest", "content-length")


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """Gather the values of the headers that are checked."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        key = name.decode("latin-1").lower()
        if key in CHECKED:
            found.setdefault(key, []).append(value.decode("latin-1").lower())
    return found


async def _refuse(send: Send, status: int) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain"), *HEADERS],
        }
    )
    await send({"type": "http.response.body", "body": b"refused\n"})
