"""A few files served on loopback alone, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bneck.specs.errors import InputError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Page:
    """What an address answers: bytes or a file, and of which type."""

    content: bytes | Path
    kind: str


class DemoServer:
    """Serves `pages` by address ("/", "/model.onnx"), from a thread of its own, while in `with`.

    Args:
        pages: what there is.
        policy: the Content-Security-Policy of every answer.
        port: to listen on; 0 takes a free one.

    Raises:
        InputError: the port is taken.
    """

    def __init__(self, pages: Mapping[str, Page], policy: str, port: int = 0) -> None:
        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), _handler(pages, policy))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"port {port} cannot be listened on: {reason}; choose another --port"
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/"

    def __enter__(self) -> DemoServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> None:
        """Until somebody interrupts."""
        self._thread.join()


def _handler(pages: Mapping[str, Page], policy: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            page = pages.get(self.path.partition("?")[0])
            if host not in (LOOPBACK, "localhost"):  # a name that somebody pointed at this machine
                self._answer(HTTPStatus.FORBIDDEN, b"this page is served to this machine alone\n")
            elif page is None:
                self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n")
            else:
                content = page.content
                self._answer(
                    HTTPStatus.OK,
                    content if isinstance(content, bytes) else content.read_bytes(),
                    page.kind,
                )

        def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
            with suppress(ConnectionError):  # whoever asked has gone
                self._send(status, body, kind)

        def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Content-Security-Policy", policy),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
