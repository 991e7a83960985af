"""Invalid, too large and too slow requests end their own connection and no other."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.in_process import Served, served
from tests.service.serving import TOKEN
from tests.service.stand_in import eventually
from tests.service.test_tls import certificate

LINE = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"
GET = LINE + b"\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("root"), body_seconds=2, open_connections=8) as service:
        yield service


def opened(service: Served) -> socket.socket:
    address = service.http.base_url.host, service.http.base_url.port or 0
    return socket.create_connection(address, timeout=10)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def whole(connection: socket.socket) -> bytes:
    """Everything received until the other side closes the connection."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side closes the connection soon, without sending anything."""
    connection.settimeout(20)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def received(connection: socket.socket) -> bytes:
    """The next bytes on a connection that stays open."""
    if part := connection.recv(65536):
        return part
    raise ConnectionAbortedError("the other side ended the connection")


def one(connection: socket.socket) -> bytes:
    """One response on a connection that stays open."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += received(connection)
    head, _, body = found.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    while len(body) < length:
        body += received(connection)
    return head


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 70_000,
        LINE + b"X: " + b"a" * 70_000,
        LINE + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
        LINE + b"X: y\r\n" * 20_000 + b"\r\n",
    ],
)
def test_a_large_head_is_refused_in_words(service: Served, head: bytes) -> None:
    with opened(service) as connection:
        connection.sendall(head)
        answer = whole(connection)
    assert status(answer) == 431
    said = "the address and the headers are too large; they must be at most 65536 bytes. Remove some."
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"detail": said}


def test_a_head_may_be_as_large_as_is_said(service: Served) -> None:
    with opened(service) as connection:
        for size in (65_536, 65_537):
            start, end = LINE + b"X: ", b"\r\n\r\n"
            connection.sendall(start + b"a" * (size - len(start + end)) + end)
            assert status(one(connection)) == (200 if size == 65_536 else 431)


def test_what_is_no_http_is_refused_in_words(service: Served) -> None:
    with opened(service) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = whole(connection)
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"detail": "the request is not valid HTTP/1.1."}


@pytest.mark.parametrize("first", [b"", b"GET /lo", LINE, b"\r\n"])
@pytest.mark.parametrize("before", [b"", GET])
def test_a_slow_head_ends_the_connection(service: Served, before: bytes, first: bytes) -> None:
    """However often a byte arrives."""
    start = time.monotonic()
    with opened(service) as connection:
        if before:
            connection.sendall(before)
            assert status(one(connection)) == 200
            start = time.monotonic()
        connection.sendall(first or b"G")
        with pytest.raises(OSError):
            while time.monotonic() < start + 30:
                connection.sendall(b"\r\n" if first == b"\r\n" else b"x" if first != LINE else b"X: y\r\n")
                time.sleep(0.1)
        assert time.monotonic() > start + 0.7


def test_who_says_nothing_is_closed(service: Served) -> None:
    with opened(service) as connection:
        assert is_closed(connection)


def test_who_goes_on_sending_after_its_answer_is_closed(service: Served) -> None:
    with opened(service) as connection:
        connection.sendall(LINE + b"Content-Length: 4000\r\n\r\n")
        assert status(one(connection)) == 200
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 30:
                connection.sendall(b"x")
                time.sleep(0.1)


@pytest.mark.parametrize("more", [b"x: y\r\n" * 1000, b"x" * 6000])
def test_trailers_without_end_end_the_connection(tmp_path: Path, more: bytes) -> None:
    post = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(tmp_path) as service, opened(service) as connection:
        connection.sendall(post + b"1\r\nx\r\n0\r\n")
        with pytest.raises(OSError):
            for _ in range(10_000):  # 60 MB, of which it accepts a few hundred KB
                connection.sendall(more)


def test_a_connection_is_kept_for_many_requests(service: Served) -> None:
    with opened(service) as connection:
        for _ in range(4):  # each with a pause, together longer than a head may take
            connection.sendall(GET)
            assert status(one(connection)) == 200
            time.sleep(0.7)
        connection.sendall(GET * 3)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 3:
            answers += received(connection)


def test_a_log_is_followed_for_longer_than_a_head_may_take(tmp_path: Path) -> None:
    with served(tmp_path, body_seconds=2, open_connections=3) as service:
        assert service.http.post("/searches", json={"name": "cars", "dataset": {"kind": "toy_cars"}}).status_code == 201
        with service.http.stream("GET", "/searches/cars/logs?follow=true") as answer, ExitStack() as others:
            for _ in range(6):
                others.enter_context(opened(service))
            time.sleep(2.5)
            log = service.root / "cars" / "jobs" / "0001" / "log.txt"
            log.write_text("a line\n")
            assert next(answer.iter_bytes()) == b"a line\n"


def test_where_there_are_too_many_connections_who_waits_longest_is_closed(tmp_path: Path) -> None:
    with served(tmp_path, open_connections=4) as service, ExitStack() as stack:
        first, *others = (stack.enter_context(opened(service)) for _ in range(12))
        for early in (first, *others[:7]):
            assert is_closed(early)
        others[-1].sendall(GET)
        assert status(one(others[-1])) == 200
        assert service.http.get("/searches").status_code == 200


def test_where_all_are_answered_the_new_connection_is_closed(tmp_path: Path) -> None:
    post = f"POST /searches HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n"
    with served(tmp_path, open_connections=2) as service, ExitStack() as stack:
        busy = [stack.enter_context(opened(service)) for _ in range(2)]
        for connection in busy:
            connection.sendall(f"{post}Expect: 100-continue\r\n\r\n".encode())
            assert status(received(connection)) == 100  # it is asked for its body
        late = stack.enter_context(opened(service))
        with pytest.raises(OSError):
            late.sendall(GET)
            one(late)
            raise AssertionError
        busy[0].sendall(b"[1, 2, 3]")
        assert status(one(busy[0])) == 415


def test_a_body_that_breaks_off_is_no_request(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        body = b"name: cars\ndataset: {kind: toy_cars}\n"
        head = [
            "POST /searches HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {TOKEN}",
            "Content-Type: application/yaml",
        ]
        for ending in ("Content-Length: 900\r\n\r\n", f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"):
            with opened(service) as connection:
                connection.sendall("\r\n".join([*head, ending]).encode() + body)
                time.sleep(0.3)
        with opened(service) as connection:
            connection.sendall("\r\n".join([*head, "Transfer-Encoding: chunked\r\n\r\nnot a number\r\n"]).encode())
            assert status(whole(connection)) == 400
        eventually(lambda: service.http.get("/searches").status_code == 200)
        assert service.http.get("/searches").json() == {"searches": []}


def test_the_limits_hold_with_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "root").mkdir()
    trusting = ssl.create_default_context(cafile=str(cert))
    with served(tmp_path / "root", certificate=cert, key=key, body_seconds=2) as service:
        for head, wanted in ((GET, 200), (LINE + b"X: " + b"a" * 70_000, 431)):
            with opened(service) as plain, trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(head)
                assert status(one(connection)) == wanted
        with opened(service) as plain, trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            assert is_closed(connection)
