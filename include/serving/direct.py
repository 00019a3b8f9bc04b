"""The short way between the wire and a prediction: uvicorn's protocol, which answers some requests as they are read.

Owns when a request may take it: small, whole at once, on a connection with nothing else under way. It costs a request
no task, no event and none of ASGI's messages, which are a quarter of the processor time of a one-row request. Every
other request, and each that is to be refused, goes through ASGI as if this were not here.
"""

from __future__ import annotations

from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from include.serving.front import Front, RawHeaders, answer_headers
from include.serving.predictions import Answer

_OK = b"HTTP/1.1 200 OK\r\n"
_SHORT, _DIGITS = (
    16 * 1024,
    5,
)  # bytes of a body, and digits of their number; longer ones would gain little


class Direct(HttpToolsProtocol):
    """Holds a request back until its body is there, within one chunk of what the connection brings."""

    _first = True
    _held = False
    _part = b""

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._first = True
        super().data_received(data)
        if self._held and not self.transport.is_closing():
            # The rest is still to come: ASGI's side knows how long to wait for it.
            self._hand_on()

    def on_headers_complete(self) -> None:
        """Hold a request back that may be answered at once."""
        if self._may_be_held():
            self._held, self._part = True, b""
        else:
            self._unset_keepalive_if_required()  # set by an answer to the request before, of the same chunk
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._held:
            self._part = self._part + body if self._part else body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer at once where that can be, else leave it to ASGI."""
        if self._held:
            # `app` is the front: it says so in `_may_be_held`.
            front = cast(Front, self.app)
            answer = front.at_once(self.url.decode("latin-1"), self.headers, self._part)
            if answer is not None:
                self._held = self._first = False
                self._part = b""
                self._write(answer)
                return
            self._hand_on()
        super().on_message_complete()

    def _may_be_held(self) -> bool:
        parser, cycle = self.parser, self.cycle
        return (
            isinstance(self.app, Front)
            and self._first  # of many sent at once only one: the others must let everybody else have a turn
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and self.url.startswith(b"/")
            and self.url.isascii()
            and _is_short(self.headers)
            and (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _hand_on(self) -> None:
        self._held = False
        self._unset_keepalive_if_required()
        super().on_headers_complete()
        if self._part:
            super().on_body(self._part)
        self._part = b""

    def _write(self, answer: Answer) -> None:
        head = [_OK]
        for name, value in (*self.server_state.default_headers, *answer_headers(answer)):
            head += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*head, b"\r\n", answer.data)))
        self.on_response_complete()


def _is_short(headers: RawHeaders) -> bool:
    """Whether a request says beforehand that its body is short."""
    for name, value in headers:
        if name == b"content-length":
            return len(value) <= _DIGITS and value.isdigit() and int(value) <= _SHORT
    return False
