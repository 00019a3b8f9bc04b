"""Real receivers of messages on 127.0.0.1: an HTTP server and a mail server."""

from __future__ import annotations

import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.servers import free_port

SECRET = "s3cret-passw0rd"
ADDRESS = "ops@example.com"


@dataclass
class Hook:
    """What was posted to the HTTP server; below /refused it answers 500 while `refuses` is true."""

    port: int
    posts: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)
    refuses: bool = True

    def url(self, path: str = "/hooks/T0KENT0KEN") -> str:
        """Return an Apprise URL with a password in it."""
        return f"json://ann:{SECRET}@127.0.0.1:{self.port}{path}"

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Title and text of every post, in order."""
        return [(body["title"], body["message"]) for _, _, body in self.posts]

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.messages]


@dataclass
class Mailbox:
    """What the mail server took."""

    port: int
    envelopes: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return an Apprise URL."""
        return (
            f"mailto://127.0.0.1:{self.port}?from=evergreen@example.com&to={ADDRESS}&mode=insecure"
        )

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Subject and text of every mail, in order."""
        found = []
        for envelope in self.envelopes:
            assert envelope.rcpt_tos == [ADDRESS]
            mail: Any = email.message_from_bytes(envelope.content, policy=default)
            text = mail.get_body(("plain",)).get_content()
            found.append((str(mail["Subject"]), text.strip()))
        return found


@contextmanager
def start_hook() -> Iterator[Hook]:
    """Run an HTTP server that keeps what is posted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.posts.append((self.path, self.headers["Authorization"], body))
            self.send_response(500 if hook.refuses and self.path.startswith("/refused") else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Hook(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def start_mailbox() -> Iterator[Mailbox]:
    """Run a mail server that keeps what it takes."""
    mailbox = Mailbox(free_port())

    class Sink:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            mailbox.envelopes.append(envelope)
            return "250 OK"

    controller = Controller(Sink(), hostname="127.0.0.1", port=mailbox.port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
