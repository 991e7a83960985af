"""uvicorn's HTTP protocol with limits on the size and duration of a request's head and on the number of connections."""

from __future__ import annotations

import json
import time
from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headhunt.service.settings import Settings

LINGER_SECONDS = 1.0
"""How long a rejected connection stays open: closing it while the client still sends would discard the answer."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    A head must be complete within `body_seconds` of the start of the connection or, on a kept-alive connection, of the head's
    first byte. The same limit applies to the rest of a body whose request is already answered. Bytes that belong to neither head
    nor body, such as the trailers of a chunked body, are limited to twice the size of a head. If there are too many connections,
    the one that has been idle longest is closed, or the new one if all others are being answered.
    """

    settings: Settings

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._deadline: TimerHandle | None = None
        self._in_head, self._head_bytes, self._is_refused = True, 0, False
        self._idle_bytes = 0
        self._waits_since = 0.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Starts the connection; closes another one if there are too many."""
        super().connection_made(transport)
        self._waits_since = time.monotonic()
        self._set_deadline()
        if len(self.connections) > self.settings.open_connections:
            others = [one for one in self.connections if isinstance(one, LimitedProtocol) and one is not self]
            waiting = [one for one in others if not one._is_answering]
            closed = min(waiting, key=lambda one: (one._is_sending, one._waits_since), default=self)
            self.connections.discard(closed)
            closed.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection."""
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Processes data in chunks of at most the size of a head."""
        most = self.settings.head_bytes
        for start in range(0, len(data), most):
            self._read(data[start : start + most])

    def _read(self, data: bytes) -> None:
        if self._in_head and not self._is_refused:
            if self._deadline is None:
                self._set_deadline()
            room = self.settings.head_bytes - self._head_bytes
            self._head_bytes += len(data)
            if len(data) > room:
                super().data_received(data[:room])
                data = data[room:]
                if self._in_head and self._head_bytes > self.settings.head_bytes:
                    most = f"they must be at most {self.settings.head_bytes} bytes"
                    self._refuse(431, f"the address and the headers are too large; {most}. Remove some.")
        if not self._is_refused and not self.transport.is_closing():
            self._idle_bytes += len(data)
            super().data_received(data)
            if not self._in_head and self._idle_bytes > 2 * self.settings.head_bytes:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head, self._idle_bytes = False, 0
        self._end_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A chunk of the body arrived."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete; the next bytes are another head."""
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0
        self._end_deadline()
        if not self._is_answering:
            self._set_deadline()

    def on_response_complete(self) -> None:
        """The response is complete."""
        super().on_response_complete()
        self._waits_since = time.monotonic()
        if not self._in_head and not self.transport.is_closing():
            self._set_deadline()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that is not valid HTTP."""
        self._refuse(400, "the request is not valid HTTP/1.1.")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_sending(self) -> bool:
        """Whether part of a response is still to be sent."""
        return self.transport.get_write_buffer_size() > 0

    def _refuse(self, status: int, detail: str) -> None:
        self._end_deadline()
        self._is_refused = True
        if self._is_answering:
            if self.pipeline or self.cycle.response_started:  # a second response inside the first would corrupt both
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"detail": detail}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _set_deadline(self) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(self.settings.body_seconds, self._too_slow)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self._is_answering:
            self.transport.abort()


def limited(chosen: Settings) -> type[LimitedProtocol]:
    """The protocol class with the limits of these settings."""

    class Limited(LimitedProtocol):
        settings = chosen

    return Limited
