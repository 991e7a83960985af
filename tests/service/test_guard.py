"""Unauthorised requests are rejected, and browsers may do with a response only what they must."""

from __future__ import annotations

import hmac
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from features.runtime.errors import UsageError
from headhunt.service.http.guard import Guard
from headhunt.service.settings import Settings, check
from tests.service.in_process import BEARER, Served, served
from tests.service.serving import TOKEN
from tests.service.stand_in import eventually

COOKIE = "headhunt-" + hmac.new(TOKEN.encode(), b"headhunt cookie name", "sha256").hexdigest()[:8]

OPEN = ("/login", "/assets/")
"""The paths that need no token."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("root"), logins="100000/minute") as service:
        yield service


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"host": "0.0.0.0"}, r"--host 0\.0\.0\.0: .*a token is required.*--token-file"),
        ({"host": "192.0.2.7"}, r"--host 192\.0\.2\.7: .*a token is required"),
        ({"host": "::"}, r"--host ::: .*a token is required"),
        ({"host": "myhost"}, r"--host myhost: .*a token is required"),
        ({"token": SecretStr("short")}, "the token has 5 characters; it must be at least 16"),
        ({"token": SecretStr("with a space in between")}, "printable ASCII characters without spaces"),
        ({"certificate": Path("cert.pem")}, "--tls-certificate and --tls-key must be given together"),
        ({"certificate": Path("c.pem"), "key": Path("k.pem")}, r"--tls-certificate: file not found: c\.pem"),
        ({"storage": "postgresql://me:secret@host/db"}, "a password in the URL would be stored in every job's record"),
        (
            {"storage": "postgresql://host/db?user=me&password=secret"},
            "a password in the URL would be stored in every job's",
        ),
        (
            {"ray": "http://me:secret@head:8265"},
            r"--ray http://\*\*\*@head:8265: credentials.*RAY_AUTH_TOKEN_PATH",
        ),
        ({"ray": "https://secret@head/x@y"}, r"--ray https://\*\*\*@head: "),
        ({"ray": "me:sec@secret@head:8265"}, r"--ray \*\*\*@head:8265: "),
        ({"storage": "journal"}, "it must be an SQLAlchemy URL"),
        ({"storage": "grpc://host:1"}, "it must be an SQLAlchemy URL"),
    ],
)
def test_no_start_with_what_is_not_safe(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        check(Settings(root=tmp_path, **given))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("ray", ["http://head:8265", "https://head/at@path", "head:8265", "http://[::1]:8265"])
def test_addresses_of_ray_without_a_password_are_taken(tmp_path: Path, ray: str) -> None:
    check(Settings(root=tmp_path, ray=ray))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_loopback_needs_no_token(tmp_path: Path, host: str) -> None:
    check(Settings(root=tmp_path, host=host))


def test_the_command_refuses_another_address_without_a_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HEADHUNT_TOKEN"}
    command = [str(Path(sys.executable).with_name("headhunt")), "serve", "--host", "0.0.0.0", "--root", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a token is required" in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def every_path(service: Served) -> list[tuple[str, str]]:
    """The methods and paths of the whole OpenAPI document, of the pages, and of the dashboard."""
    filled = {"name": "cars", "trial": "1", "format": "keras"}
    described = service.http.get("/openapi.json").json()["paths"].items()
    found = [(m.upper(), re.sub(r"{(\w+)}", lambda name: filled[name[1]], path)) for path, of in described for m in of]
    pages = ["/", "/login", "/assets/app.js", "/openapi.json", "/docs", "/redoc", "/nothing"]
    other = [
        "/dashboard",
        "/dashboard/",
        "/api/studies",
        "/static/bundle.js",
        "/artifacts/1/1",
        "/csv/1",
        "/favicon.ico",
    ]
    changing = [
        ("POST", "/logout"),
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies"),
        ("PUT", "/api/studies/1/1/note"),
    ]
    return [*found, *(("GET", path) for path in pages + other), *changing]


def test_every_route_requires_the_token(service: Served) -> None:
    paths = every_path(service)
    assert len(paths) > 25
    forged = {"Cookie": f"{COOKIE}=99999999999.{64 * '0'}"}
    for method, path in paths:
        for headers in ({}, {"Authorization": "Bearer another-token-than-the-one"}, {"Authorization": TOKEN}, forged):
            answer = httpx.request(method, f"{service.http.base_url}{path}", headers=headers)
            assert answer.status_code == (200 if path.startswith(OPEN) else 401), (method, path)
    assert service.http.get("/searches").status_code == 200


def test_a_token_in_the_address_is_not_taken(service: Served) -> None:
    assert service.anonymous().get(f"/searches?token={TOKEN}").status_code == 401


def test_tokens_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    real = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return real(one, other)

    async def nothing(*_: Any) -> None: ...

    guard = Guard(nothing, Settings(root=tmp_path, token=SecretStr(TOKEN)))
    monkeypatch.setattr("headhunt.service.http.guard.hmac.compare_digest", noted)
    assert not guard.is_token("x")
    assert not guard.is_token("")
    assert not guard.is_token("é" * 40)
    assert guard.is_token(TOKEN)
    assert lengths == [(32, 32)] * 4  # of digests, whose length reveals nothing


def test_a_cookie_opens_until_it_expires(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    http = service.anonymous()
    answer = http.post("/login?next=/searches", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/searches")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert http.get("/searches").status_code == 200
    value = http.cookies[COOKIE]
    until, _, signature = value.partition(".")
    later = f"{int(until) + 9}.{signature}"
    assert service.anonymous().get("/searches", headers={"Cookie": f"{COOKIE}={later}"}).status_code == 401
    monkeypatch.setattr("headhunt.service.http.guard.COOKIE_SECONDS", -1)
    old = service.anonymous()
    old.post("/login", data={"token": TOKEN})
    assert old.get("/searches").status_code == 401
    assert "Wrong token." in service.anonymous().post("/login", data={"token": "wrong"}).text


@pytest.mark.parametrize("others", ['prefs={"a":1}; ', "a=b=c; =; ;; x; ", f"{COOKIE}=1.2; ", 'q="; ', "\xe9=\xff; "])
def test_cookies_of_other_services_of_the_host_are_in_nobodys_way(service: Served, others: str) -> None:
    http = service.anonymous()
    http.post("/login", data={"token": TOKEN})
    cookie = f"{others}{COOKIE}={http.cookies[COOKIE]}; last={{}}"
    http.cookies.clear()
    assert http.get("/searches", headers={"Cookie": cookie.encode("latin-1")}).status_code == 200


def test_two_services_on_one_host_have_cookies_of_two_names(tmp_path: Path) -> None:
    """Browsers share cookies between the ports of a host."""
    tokens = (TOKEN, "the-token-of-another-service")
    names = []
    for token in tokens:
        (tmp_path / token).mkdir()
        with served(tmp_path / token, token=SecretStr(token)) as service:
            http = service.anonymous()
            http.post("/login", data={"token": token})
            names += list(http.cookies)
    assert len(set(names)) == 2 and all(name.startswith("headhunt-") for name in names)


@pytest.mark.parametrize(
    "to",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/a\\b", "/a%0d%0aSet-Cookie: a=b", "/%09/evil.example", "x"],
)  # fmt: skip
def test_the_login_leads_to_no_other_site(service: Served, to: str) -> None:
    answer = service.anonymous().post(f"/login?next={to}", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_browsers_are_led_to_the_login_and_others_are_told(service: Served) -> None:
    page = service.anonymous().get("/dashboard/", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/dashboard/")
    deep = service.anonymous().get("/searches/a%2Fb/logs?job=1&follow=true#x", headers={"Accept": "text/html"})
    to = deep.headers["location"]
    assert to == "/login?next=/searches/a%252Fb/logs%3Fjob%3D1%26follow%3Dtrue"
    assert 'method="post">' in service.anonymous().get(to).text  # to the browser's current URL, which contains `next`
    after = service.anonymous().post(to, data={"token": TOKEN})
    assert (after.status_code, after.headers["location"]) == (303, "/searches/a%2Fb/logs?job=1&follow=true")
    other = service.anonymous().get("/searches")
    assert other.headers["www-authenticate"] == "Bearer"
    assert "--token-file or HEADHUNT_TOKEN" in other.json()["detail"]


@pytest.mark.parametrize("kind", ["reads", "writes", "logins", "wrong tokens"])
def test_too_many_requests_are_told_when_to_come_again(tmp_path: Path, kind: str) -> None:
    limit = {"logins" if kind == "wrong tokens" else kind: "2/day"}
    with served(tmp_path, **limit) as service:
        asked = {
            "reads": lambda: service.http.get("/searches"),
            "writes": lambda: service.http.post("/searches/none/stop"),
            "logins": lambda: service.anonymous().post("/login", data={"token": "wrong"}),
            "wrong tokens": lambda: service.anonymous().get("/searches", headers={"Authorization": "Bearer wrong"}),
        }[kind]
        answers = [asked() for _ in range(3)]
        assert 429 not in [answer.status_code for answer in answers[:2]]
        assert answers[2].status_code == 429
        assert 1 <= int(answers[2].headers["retry-after"]) <= 2 * 86400
        assert "at most 2 per 1 day" in answers[2].json()["detail"]


def wrong(service: Served) -> int:
    return service.anonymous().get("/searches", headers={"Authorization": "Bearer a-guess"}).status_code


def test_who_guesses_tokens_is_not_told_when_one_is_right(tmp_path: Path) -> None:
    with served(tmp_path, logins="2/day") as service:
        assert [wrong(service) for _ in range(3)] == [401, 401, 429]
        assert service.http.get("/searches").status_code == 429
        assert service.anonymous().get("/searches").status_code == 401  # it does not guess


def test_who_guesses_tokens_locks_out_nobody_behind_the_same_address(tmp_path: Path) -> None:
    with served(tmp_path, logins="2/day") as service:
        assert service.http.get("/searches").status_code == 200
        assert [wrong(service) for _ in range(3)] == [401, 401, 429]
        assert service.http.get("/searches").status_code == 200


def test_a_login_that_is_refused_shows_its_form_again(tmp_path: Path) -> None:
    with served(tmp_path / "root", logins="1/minute") as service, service.anonymous() as browser:
        browser.headers["Accept"] = "text/html"
        wrong = browser.post("/login", data={"token": "no"})
        often = browser.post("/login", data={"token": "no"})
    for answer, status, said in (
        (wrong, 401, "Wrong token."),
        (often, 429, "Too many requests: at most 1 per 1 minute. Try again."),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert said in answer.text and 'name="token"' in answer.text
    assert often.headers["retry-after"].isdigit()


def test_requests_that_read_are_answered_without_their_body(tmp_path: Path) -> None:
    """Otherwise anyone without a token could occupy all connections with a few bytes."""
    with served(tmp_path, connections=1) as service:
        for method, path in (
            ("GET", "/assets/app.js"),
            ("GET", "/login"),
            ("HEAD", "/nothing"),
            ("GET", "/api/studies"),
        ):
            with raw(service) as slow:
                slow.settimeout(5)
                slow.sendall(request(method, path, "Content-Length: 900"))
                assert slow.recv(4096).split()[1] in (b"200", b"404"), path
                eventually(lambda: service.http.get("/searches").status_code == 200, seconds=5)


def test_a_login_is_small(service: Served) -> None:
    answer = service.anonymous().post("/login", data={"token": "x" * 5000})
    assert answer.status_code == 413 and "at most 4096 bytes" in answer.json()["detail"]
    assert service.anonymous().post("/login", content=iter([b"x" * 3000, b"x" * 3000])).status_code == 413


def test_a_proxy_says_that_a_browser_asked_by_https(service: Served) -> None:
    for value, is_https in (("https", True), ("HTTPS, http", True), ("http", False), ("http, https", False)):
        forwarded = {"X-Forwarded-Proto": value}
        answer = service.anonymous().post("/login", data={"token": TOKEN}, headers=forwarded)
        assert ("Secure" in answer.headers["set-cookie"]) == is_https
        assert (
            "strict-transport-security" not in answer.headers
        )  # for all ports of the host, so that is up to the proxy
        away = service.http.post("/logout", headers=forwarded)
        assert ("Secure" in away.headers["set-cookie"]) == is_https
    assert "Secure" not in service.anonymous().post("/login", data={"token": TOKEN}).headers["set-cookie"]


def test_pages_behind_a_proxy_with_a_port_are_its_own(tmp_path: Path) -> None:
    with served(tmp_path, hosts=("Cars.Example",)) as service:
        for host, origin, status in (
            ("cars.example:8443", "https://cars.example:8443", 404),
            ("CARS.example:8443", "https://cars.example:8443", 404),
            ("cars.example", "https://cars.example:8443", 403),
        ):
            answer = service.http.post("/searches/none/stop", headers={"Host": host, "Origin": origin})
            assert answer.status_code == status, answer.text


def test_too_many_at_once(tmp_path: Path) -> None:
    with served(tmp_path, connections=1) as service, raw(service) as slow:
        slow.sendall(request("POST", "/searches", "Content-Length: 9", "Expect: 100-continue"))
        assert slow.recv(4096).split()[1] == b"100"
        answer = service.http.get("/searches")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def raw(service: Served) -> socket.socket:
    return socket.create_connection((service.http.base_url.host, service.http.base_url.port or 0), timeout=20)


def request(method: str, path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {TOKEN}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def test_large_and_slow_bodies_are_refused(tmp_path: Path) -> None:
    with served(tmp_path, body_bytes=1000, body_seconds=2) as service:
        large = b"x" * 1001
        assert service.http.post("/searches", content=large).status_code == 413
        assert service.http.post("/searches", content=iter([large[:600], large[:600]])).status_code == 413
        with raw(service) as slow:
            slow.sendall(request("POST", "/searches", "Content-Length: 900", "Content-Type: application/json") + b"{")
            assert b"408" in slow.recv(4096).splitlines()[0]
        assert service.http.get("/searches").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "evil.example@127.0.0.1:x"])
def test_a_name_that_somebody_else_points_here_is_not_answered(service: Served, host: str) -> None:
    with raw(service) as asked:
        asked.sendall(request("GET", "/searches", host=host))
        assert asked.recv(4096).split()[1] in (b"421", b"400")


def test_the_operators_own_names_are_answered(tmp_path: Path) -> None:
    with served(tmp_path, hosts=("cars.example",)) as service:
        assert service.http.get("/searches", headers={"Host": "cars.example"}).status_code == 200
        refused = service.http.get("/searches", headers={"Host": "vans.example"})
        assert "--allowed-host" in refused.json()["detail"]


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://["}, {"Sec-Fetch-Site": "cross-site"}]
)  # fmt: skip
def test_pages_of_other_sites_change_nothing(service: Served, headers: dict[str, str]) -> None:
    for path in ("/searches", "/searches/cars/stop", "/login", "/logout", "/api/studies"):
        assert service.http.post(path, headers=headers).status_code == 403, path


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the dashboard leaves closing its files to the garbage collector
def test_every_answer_says_what_a_browser_may_do_with_it(service: Served) -> None:
    asked = [
        ("/", 200),
        ("/searches", 200),
        ("/nothing", 404),
        ("/dashboard/", 200),
        ("/api/studies", 200),
        ("/login", 200),
    ]
    for path, status in [*asked, ("/assets/app.js", 200), ("/searches/none/report", 404), ("/static/bundle.js", 200)]:
        answer = service.http.get(path)
        assert answer.status_code == status, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert ("script-src 'self'" in policy) != path.endswith("/report")
        assert ("unsafe-eval" in policy) == path.startswith(("/dashboard", "/api", "/static"))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "server" not in answer.headers
    report = service.http.get("/searches/none/report").headers["content-security-policy"]
    assert report.startswith("sandbox") and "allow-same-origin" not in report  # its scripts cannot reach the service
    refused = service.anonymous().get("/searches")
    assert refused.headers["content-security-policy"] and refused.headers["cache-control"] == "no-store"


def test_the_pages_files_are_asked_for_anew_each_time(service: Served) -> None:
    answer = service.http.get("/assets/app.js")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"].startswith("text/javascript")


def test_without_a_token_there_is_no_login(tmp_path: Path) -> None:
    with served(tmp_path, token=None) as service:
        assert service.http.get("/searches").status_code == 200
        assert service.http.get("/login").status_code == 404
        assert service.http.get("/searches", headers=BEARER).status_code == 200
