"""A server with scripted answers: those of a proxy, another program, or a service that is shutting down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from headhunt.service.board.schemas import JobStatus, SearchStatus, TrialCounts


class Answer(NamedTuple):
    """`is_cut`: the connection closes before the body is complete."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012
    is_cut: bool = False


class Asked(NamedTuple):
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted(NamedTuple):
    """The server's URL, and the requests it received."""

    url: str
    asked: list[Asked]


@contextmanager
def scripted(*answers: Answer) -> Iterator[Scripted]:
    """Sends these answers one after the other, and repeats the last one."""
    left, asked, lock = list(answers), list[Asked](), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            with lock:
                asked.append(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) + answer.is_cut))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *given: Any) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Scripted(f"http://127.0.0.1:{server.server_address[1]}", asked)
        finally:
            server.shutdown()
            thread.join()


def status(state: Any = "running", message: str | None = None) -> Answer:
    """The status of the search `cars`, which has one job."""
    time = "2026-01-02T03:04:05+00:00"
    job = JobStatus(
        number=1, kind="search", state=state, stage=None, created=time, started=time, ended=None, message=message,
        ray_id="cars-1.1",
    )  # fmt: skip
    told = SearchStatus(
        name="cars", state=state, stage=None, message=message, objective="val_accuracy", study_id=None,
        trials=TrialCounts(total=6), trials_per_minute=None, images_per_second=None, best=None, created=time, jobs=[job],
        promotions=0, exports=0, report=False,
    )  # fmt: skip
    return Answer(body=told.model_dump_json().encode())


def log(said: bytes, is_cut: bool = False) -> Answer:
    """The log of a job."""
    return Answer(body=said, headers={"Content-Type": "text/plain; charset=utf-8"}, is_cut=is_cut)
