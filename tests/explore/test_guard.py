"""The page's server answers nobody but the page."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from modpose.explore.page import files
from modpose.explore.server import _bound, _way_in
from tests.explore.asking import HERE, PORT, Page
from tests.outputs.test_export import star_run

HOST = ("host", f"127.0.0.1:{PORT}")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(star_run(tmp_path_factory.mktemp("run"), "3.1"))


def test_the_page_is_answered(page: Page) -> None:
    answer = page.ask("", headers=[HOST])
    assert answer.status == 200 and b"<canvas" in answer.body
    for name, value in {
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
        "x-frame-options": "DENY",
    }.items():
        assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "http:" not in policy and "https:" not in policy
    for name in files():
        assert page.ask(f"page/{name}", headers=[HOST]).body == files()[name].read_bytes()


@pytest.mark.parametrize("token", [None, "", "wrong", "the-secre", "the-secret1"])
def test_without_the_token_nothing_is_answered(page: Page, token: str | None) -> None:
    for path in ("", "runs", "page/start.js", "runs/0/column?name=z_0"):
        answer = page.ask(path, token=token)
        assert (answer.status, answer.body) == (404, b"refused\n")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", f"evil.example:{PORT}")],  # a name that was made to mean 127.0.0.1
        [("host", "127.0.0.1")],
        [("host", f"127.0.0.1:{PORT + 1}")],
        [HOST, HOST],
        [HOST, ("origin", "https://evil.example")],
        [HOST, ("origin", "null")],
        [HOST, ("origin", f"https://127.0.0.1:{PORT}")],
        [HOST, ("origin", f"http://127.0.0.1:{PORT + 1}")],
        [HOST, ("sec-fetch-site", "cross-site")],
        [HOST, ("sec-fetch-site", "same-site")],
        [HOST, ("content-length", "999999999999")],
        [HOST, ("content-length", "-1")],
    ],
)
def test_another_origin_is_refused(page: Page, headers: list[tuple[str, str]]) -> None:
    for path in ("", "runs", "runs/0/column?name=z_0"):
        answer = page.ask(path, headers=headers)
        assert (answer.status, answer.body) == (403, b"refused\n")
        assert "access-control-allow-origin" not in answer.headers


def test_a_link_from_elsewhere_opens_the_page_and_nothing_more(page: Page) -> None:
    """As from the private file that the browser is given; other pages still cannot read it."""
    link = [HOST, ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")]
    assert page.ask("", headers=link).status == 200
    assert page.ask("", headers=link, token="wrong").status == 404
    assert page.ask("", headers=[*link, ("origin", "https://evil.example")]).status == 403
    for dest in ("empty", "script", "image", "iframe"):
        assert page.ask("", headers=[*link[:2], ("sec-fetch-dest", dest)]).status == 403
    assert page.ask("runs/0/selections/a", "DELETE", headers=link).status == 403


def test_the_browser_is_given_a_private_file(tmp_path: Path) -> None:
    address = f"{HERE}/the-secret/"
    given = _way_in(tmp_path, address)
    path = tmp_path / "open.html"
    assert given == path.as_uri() and "the-secret" not in given
    assert address in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_change_must_name_its_origin(page: Page) -> None:
    assert page.ask("runs/0/selections/a", "DELETE", headers=[HOST]).status == 403
    assert page.ask("runs/0/selections/a", "DELETE", headers=[HOST, ("origin", HERE)]).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "page/../opened.py",
        "page/%2e%2e/opened.py",
        "page/..%2fopened.py",
        "page//etc/passwd",
        "page/vendor/../../opened.py",
        "page/index.html",
        "page/__init__.py",
        "runs/0/written/..%2fconfig.yaml",
        "runs/0/written/config.yaml",
        "runs/0/written/%2fetc%2fpasswd",
        "runs/0/selections/..%2f..%2fsecret",
        "runs/0/selections/..",
        "runs/1/column?name=z_0",
        "runs/-1/column?name=z_0",
        "config.yaml",
    ],
)
def test_files_outside_the_page_are_refused(page: Page, path: str) -> None:
    answer = page.ask(path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body and b"import" not in answer.body


def test_a_link_is_no_written_file(page: Page) -> None:
    run = page.runs[0]
    bits = bytes([255] * 7 + [15])
    assert page.ask("runs/0/selections/linked", "PUT", bits).status == 200
    secret = run.run.path / "config.yaml"
    (run.selections.folder / "linked.txt").symlink_to(Path(secret))
    assert page.ask("runs/0/written/linked.txt").status == 400
    assert secret.read_bytes() not in page.ask("runs/0/written/linked.txt").body


def test_the_page_can_be_asked_for_as_soon_as_its_address_is_told() -> None:
    """The server starts after that; a browser that is quicker waits for it."""
    with _bound(0) as place, socket.create_connection(place.getsockname(), timeout=60):
        pass
