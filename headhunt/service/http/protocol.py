"""How large and how slow the head of a request may be, and how many connections there are: uvicorn's protocol with limits."""

from __future__ import annotations

import json
import time
from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headhunt.service.settings import Settings

LINGER_SECONDS = 1.0
"""How long a refused sender is still listened to; to close while it sends would take the answer from it."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    A head must be whole some seconds after the connection began or, where it is kept, after the head's first byte; so must the
    rest of a body whose request was answered already. What comes after a head without being a body, such as a chunked one's
    trailers, has the room of a head. Where there are too many connections, that which has waited longest for a request is closed,
    or the new one if all are being answered.
    """

    settings: Settings

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._deadline: TimerHandle | None = None
        self._in_head, self._head_bytes, self._is_refused = True, 0, False
        self._idle_bytes = 0
        self._waits_since = 0.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begins; at the cost of another one where there are too many."""
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
        """Ends."""
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads, never more at once than a head may have."""
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
                    most = f"at most {self.settings.head_bytes} bytes are taken"
                    self._refuse(431, f"the address and the headers are too large; {most}. Leave some out.")
        if not self._is_refused and not self.transport.is_closing():
            self._idle_bytes += len(data)
            super().data_received(data)
            if not self._in_head and self._idle_bytes > 2 * self.settings.head_bytes:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._idle_bytes = False, 0
        self._end_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole, too: what follows is another head."""
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0
        self._end_deadline()
        if not self._is_answering:
            self._set_deadline()

    def on_response_complete(self) -> None:
        """The answer is whole."""
        super().on_response_complete()
        self._waits_since = time.monotonic()
        if not self._in_head and not self.transport.is_closing():
            self._set_deadline()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._refuse(400, "the request is not valid HTTP/1.1.")

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_sending(self) -> bool:
        """Whether a part of an answer is still on its way."""
        return self.transport.get_write_buffer_size() > 0

    def _refuse(self, status: int, detail: str) -> None:
        self._end_deadline()
        self._is_refused = True
        if self._is_answering:
            if self.pipeline or self.cycle.response_started:  # a second answer inside the first would be neither
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
    """The protocol with these settings' limits."""

    class Limited(LimitedProtocol):
        settings = chosen

    return Limited
