"""Pages served to a browser on this machine, on loopback alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Page:
    """What an address answers: bytes or a file, its media type, and the HTTP status."""

    content: bytes | Path
    kind: str = "text/plain"
    status: int = HTTPStatus.OK


# (path without the query, the body of a POST or None) -> the page, None where there is none.
Answer = Callable[[str, bytes | None], Page | None]


class PageServer:
    """Serves pages from threads of its own, until `stop` or the end of `with`.

    Args:
        answer: what an address answers; called from several threads at once.
        headers: of every answer, besides type, length and "do not store".
        port: to listen on; 0 takes a free one.

    Raises:
        OSError: the port is taken, not this user's to take, or no port.
    """

    def __init__(self, answer: Answer, *, headers: Mapping[str, str], port: int = 0) -> None:
        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), _handler(answer, headers))
        except OverflowError as error:
            raise OSError(str(error)) from None
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/"

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Until the user interrupts."""
        self._thread.join()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(answer: Answer, headers: Mapping[str, str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _answer(self, body: bytes | None) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (LOOPBACK, "localhost"):  # a name that somebody pointed at this machine
                refused = b"this page is served to this machine alone\n"
                page: Page | None = Page(refused, status=HTTPStatus.FORBIDDEN)
            else:
                page = answer(self.path.partition("?")[0], body)
            try:
                self._send(page or Page(b"there is no such page\n", status=HTTPStatus.NOT_FOUND))
            except OSError:
                self.close_connection = True  # the browser is gone

        def _send(self, page: Page) -> None:
            body = page.content if isinstance(page.content, bytes) else page.content.read_bytes()
            self.send_response(page.status)
            sent = {
                "Content-Type": page.kind,
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
            }
            for name, value in {**sent, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
