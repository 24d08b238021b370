"""Host names, foreign pages, tokens, headers, errors and the log: what stands before the API and the page."""

import asyncio
import json
import logging
import re
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("gradio") is None:  # which is not imported here: it takes seconds, in quick runs for nothing
    pytest.skip("needs unitweave[serve]", allow_module_level=True)

from starlette.datastructures import Headers

from helpers.serving import make_run, raw_request, running
from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.serve.access import check_access
from unitweave.serve.app import build_app
from unitweave.serve.responses import access_log
from unitweave.serve.security import Access, Gate, host_name
from unitweave.translate.translator import Translator

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery"
LONG = "/gradio_api/upload"


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Translator:
    return Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))


@pytest.fixture(scope="module")
def port(translator: Translator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    app, _ = build_app(
        translator,
        ServerLimits(request_timeout_seconds=2.0),
        Access(allowed_hosts=["speech.example"]),
        tmp_path_factory.mktemp("p"),
    )
    with running(app, head_seconds=1.0) as port:
        yield port


@pytest.fixture(scope="module")
def locked(translator: Translator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    app, _ = build_app(translator, ServerLimits(), Access(token=TOKEN), tmp_path_factory.mktemp("q"))
    with running(app) as port:
        yield port


def ask(port: int, path: str = "/v1/health", method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and whole answer; header names with underscores for hyphens, `host` defaults to localhost."""
    fields = {"host": f"localhost:{port}", "connection": "close", **headers}
    if body or method not in ("GET", "HEAD", "OPTIONS"):
        fields["content-length"] = str(len(body))
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    answer = raw_request(port, f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body).decode("utf-8", "replace")
    return int(answer.split()[1]), answer


def error_of(answer: str) -> str:
    content = json.loads(answer.split("\r\n\r\n", 1)[1])
    assert list(content) == ["error"]
    return str(content["error"])


@pytest.mark.parametrize("path", ["/v1/health", "/", "/config", "/docs", "/gradio_api/queue/data?session_hash=x"])
def test_other_host_names_are_refused(port: int, path: str) -> None:
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "localhost@evil.example", "127.1"):
        status, answer = ask(port, path, host=host)
        assert status in (400, 421) and "gradio_config" not in answer and error_of(answer)
    assert raw_request(port, b"GET /v1/health HTTP/1.0\r\n\r\n").split()[1] == b"421"


def test_the_servers_own_names_are_accepted(port: int) -> None:
    for host in ("localhost", "LOCALHOST:1", f"127.0.0.1:{port}", "[::1]:80", "speech.example", "speech.example:8080"):
        assert ask(port, host=host)[0] == 200
    assert Access("192.0.2.7").knows_host("192.0.2.7:80", None) and not Access("0.0.0.0").knows_host("0.0.0.0", None)
    assert Access("0.0.0.0").knows_host("192.0.2.7:80", "192.0.2.7"), "the address that the client connected to"
    for odd in ("local\thost", "localhost\n", "user@localhost", "[::1", "localhost:99999", "local host", "localhost#a",
                "[::ffff:127.0.0.1]", "[::1%25lo]", "0x7f.1", "2130706433", "localhost:80:80"):  # fmt: skip
        assert not Access().knows_host(odd, "127.0.0.1"), odd
    assert Access().knows_host("localhost.:80", None) and Access().knows_host("[::1]", "::1")
    assert host_name("a:b") is None and host_name("[::1]:80") == "::1" and host_name("") is None


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:1"},
    {"origin": "http://["},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("path", ["/v1/translate", "/v1/stream", LONG, "/gradio_api/queue/join", "/gradio_api/reset"])
def test_posts_of_foreign_pages_are_refused_before_their_body(port: int, path: str, foreign: dict[str, str]) -> None:
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in foreign.items())
    # The body is announced and never sent.
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 1000\r\n{fields}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = HTTPResponse(connection)
        answer.begin()
        content = json.load(answer)
    assert answer.status == 403 and list(content) == ["error"] and "other web pages" in content["error"]


def test_foreign_pages_read_nothing_and_links_work(port: int) -> None:
    for origin in ("http://evil.example", "http://localhost:3000", "http://127.0.0.1:3000", "null"):
        for path in ("/config", "/v1/health"):
            status, answer = ask(port, path, origin=origin)
            assert status == 403 and "access-control" not in answer.lower()
        status, answer = ask(port, "/config", "OPTIONS", origin=origin, access_control_request_method="POST")
        assert status == 403 and "access-control" not in answer.lower()
    assert ask(port, "/v1/health", sec_fetch_site="cross-site", sec_fetch_mode="no-cors")[0] == 403
    assert ask(port, "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200, "a link to the page"
    own = {"origin": f"http://localhost:{port}", "sec_fetch_site": "same-origin"}
    assert ask(port, "/gradio_api/reset", "POST", b'{"event_id": "x"}', **own)[0] == 200
    assert ask(port, "/gradio_api/reset", "POST", b'{"event_id": "x"}', origin="https://speech.example")[0] == 200


def test_a_token_opens_the_server_and_nothing_else_does(locked: int) -> None:
    for path in ("/", "/config", "/v1/health", "/docs", "/openapi.json", "/assets/x.js", "/gradio_api/info"):
        status, answer = ask(locked, path)
        assert status == 401 and "www-authenticate: bearer" in answer.lower() and error_of(answer)
    for wrong in ("Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
        assert ask(locked, authorization=wrong)[0] == 401
    assert ask(locked, authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(locked, cookie=f"unitweave-{locked}={TOKEN}")[0] == 401, "the cookie is not the token"
    status, answer = ask(locked, "/", accept="text/html")
    assert status == 401 and "<form" in answer
    status, answer = ask(locked, "/login", "POST", b"token=wrong", accept="text/html")
    assert status == 401 and "Wrong token" in answer


@pytest.mark.parametrize("by", ["link", "form"])
def test_a_browser_trades_the_token_for_a_cookie(locked: int, by: str) -> None:
    if by == "link":
        status, answer = ask(locked, f"/?token={TOKEN}")
    else:
        status, answer = ask(locked, "/login", "POST", f"token={TOKEN}".encode())
    assert status == 303 and TOKEN not in answer
    fields = dict(line.split(": ", 1) for line in answer.split("\r\n\r\n")[0].split("\r\n")[1:])
    assert fields["location"] == "/"
    cookie, *attributes = fields["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert ask(locked, cookie=cookie)[0] == 200 and ask(locked, "/", cookie=cookie)[0] == 200
    assert ask(locked, cookie=cookie[:-1])[0] == 401


def test_other_machines_need_a_token_or_an_explicit_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNITWEAVE_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.7", "speech.example", ""):
        with pytest.raises(InputError, match="--allow-anonymous"):
            check_access(host, None, False)
        assert check_access(host, None, True) is None and check_access(host, TOKEN, False) == TOKEN
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        assert check_access(host, None, False) is None
    monkeypatch.setenv("UNITWEAVE_TOKEN", TOKEN)
    assert check_access("0.0.0.0", None, False) == TOKEN
    for short in ("", "secret", "x" * 15, "ä" * 20):
        with pytest.raises(InputError, match="16"):
            check_access("127.0.0.1", short, False)


@pytest.mark.parametrize("path", ["/", "/config", "/docs", "/v1/health", "/nothing", "/favicon.ico", "/openapi.json"])
def test_every_response_has_the_headers(port: int, path: str) -> None:
    head = ask(port, path)[1].split("\r\n\r\n")[0].lower()
    assert "x-content-type-options: nosniff" in head and "referrer-policy: no-referrer" in head
    assert "frame-ancestors 'none'" in head and "content-security-policy: default-src 'none'" in head
    assert "unsafe-eval" not in head and "server:" not in head


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/translate", 405),
        ("DELETE", "/v1/health", 405),
        ("POST", "/v1/health", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("PUT", "/", 405),
        ("POST", "/config", 405),
        ("GET", "/gradio_api/queue/join", 405),
        ("POST", "/gradio_api/run/translate", 404),
        ("GET", "/assets/nothing.js", 404),
        ("GET", "/gradio_api/upload_progress/x", 404),
    ],
)
def test_unknown_addresses_and_wrong_methods_have_the_documented_form(
    port: int, method: str, path: str, status: int
) -> None:
    got, answer = ask(port, path, method)
    assert got == status and error_of(answer)
    assert status != 405 or "allow: " in answer.lower()


BODIES = {
    "empty": b"",
    "no end": b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\nabc',
    "no header": b"--b\r\n\r\nabc\r\n--b--\r\n",
    "other edge": b"--c\r\n\r\nabc\r\n--c--\r\n",
    "not multipart": b"{}",
}


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=b", "multipart/form-data", "application/json", "x", ""]
)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", ["/v1/translate", LONG])
def test_faults_in_an_upload_have_the_documented_form(port: int, path: str, body: str, kind: str) -> None:
    status, answer = ask(port, path, "POST", BODIES[body], content_type=kind)
    assert status in (400, 422) and error_of(answer)


def test_bytes_that_are_no_http_have_the_documented_form(port: int) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"x" * 70_000 + b"\r\n\r\n",
    ):
        answer = raw_request(port, junk).decode()
        assert answer.split()[1] in ("400", "431") and error_of(answer)


def test_a_request_is_logged_in_one_line_without_its_query(
    locked: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "propagate", True)
    with caplog.at_level(logging.INFO, access_log.name):
        ask(locked, f"/?token={TOKEN}")
        ask(locked, "/a%0aforged%1b[31m")
        assert ask(locked, method="X" * 5000)[0] == 401
        ask(locked, x_forwarded_for="1.2.3.4 GET /forged 200 \x1b[2J")
    first, second, third, fourth = (record.getMessage() for record in caplog.records if record.name == access_log.name)
    assert first.startswith("127.0.0.1 GET / 303 ") and TOKEN not in caplog.text
    assert "GET /a%0Aforged%1B%5B31m 401" in second
    assert len(third) < 80 and fourth.count(" ") == 5 and "\x1b" not in fourth


def test_the_reference_needs_no_other_host(port: int) -> None:
    answer = ask(port, "/docs")[1]
    assert "/v1/translate" in answer and "<script" not in answer
    assert "http" not in answer.split("\r\n\r\n", 1)[1].replace("http://127.0.0.1:7860", "")
    page = ask(port, "/")[1]
    assert 'nonce="' in page


def test_cookies_of_other_servers_do_not_matter(locked: int) -> None:
    """A browser sends those of every port of the host, and http.cookies gives up at the first odd one."""
    ours = re.search(r"set-cookie: ([^;]+)", ask(locked, f"/?token={TOKEN}")[1])
    assert ours
    for other in ('a[b]={"x": 1}', 'a="' + "\\\\" * 25_000 + '"', "\xff", "=", "x"):
        assert ask(locked, cookie=f"{other}; {ours[1]}; z=1")[0] == 200
        assert ask(locked, cookie=f"{other}; z=1")[0] == 401


def test_headers_that_take_long_to_parse_are_not_passed_on() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: dict, receive: object, send: object) -> None:
        seen.extend(scope["headers"])

    costly = [(b"cookie", b'a="' + b"\\\\" * 29_000 + b'"'), (b"range", b"bytes=0-,1-,2-"), (b"cookie", b"x")]
    kept = [(b"host", b"localhost"), (b"range", b"bytes=5-"), (b"accept", b"a,b")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [*costly, *kept]}
    asyncio.run(Gate(app, Access())(scope, None, None))  # type: ignore[arg-type]
    assert seen == kept


def test_a_websocket_follows_no_link() -> None:
    cross_site = Headers({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
    assert not Access().is_foreign(cross_site, "GET") and Access().is_foreign(cross_site, "WEBSOCKET")
