"""What the service uses of uvicorn beyond its public interface is still there; what it does is tested in test_protocol.py."""

from __future__ import annotations

import inspect

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

CHANGED = (
    f"uvicorn {uvicorn.__version__} has changed inside: fix headhunt/service/http/protocol.py, and only there, or lower the "
    "upper bound of uvicorn in pyproject.toml."
)


def test_a_status_line_is_bytes_by_its_number() -> None:
    assert STATUS_LINE[431] == b"HTTP/1.1 431 Request Header Fields Too Large\r\n", CHANGED


def test_a_connection_has_what_its_limits_are_set_by() -> None:
    overridden = {
        "connection_made", "connection_lost", "data_received", "on_headers_complete", "on_body", "on_message_complete",
        "on_response_complete", "send_400_response",
    }  # fmt: skip
    assert overridden <= set(vars(HttpToolsProtocol)), CHANGED
    made = inspect.getsource(HttpToolsProtocol.__init__)
    for name in ("connections", "cycle", "pipeline", "loop", "transport"):
        assert f"self.{name}" in made, CHANGED
    cycle = inspect.getsource(RequestResponseCycle.__init__)
    for name in ("response_complete", "response_started", "disconnected", "message_event"):
        assert f"self.{name}" in cycle, CHANGED
