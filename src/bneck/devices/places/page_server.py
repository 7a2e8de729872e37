"""The server of the browser's page: on loopback, behind an address that nobody can guess."""

from __future__ import annotations

import errno
import json
import re
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, ClassVar

from bneck.devices.places.contract import DeviceError

PAGE = Path(__file__).with_name("browser.html")
POLL_S = 20.0  # how long the page waits for a job before it asks again
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}


class PageServer:
    """Serves the page, onnxruntime-web's scripts and models, and passes jobs and answers on.

    Args:
        name: of the device, for messages.
        port: on 127.0.0.1; 0 takes a free one.
        scripts: onnxruntime-web's folder.

    Raises:
        DeviceError: the port is in use, or not this user's to take.
    """

    def __init__(self, name: str, port: int, scripts: Path) -> None:
        self.jobs: Queue[dict[str, Any]] = Queue()
        self.answers: Queue[Any] = Queue()
        self.models: dict[int, bytes] = {}
        self.scripts = scripts
        self.secret = secrets.token_hex(16)
        handler = type("Bound", (_Handler,), {"server_of": self})
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            why = (
                "is in use" if error.errno == errno.EADDRINUSE else f"is refused ({error.strerror})"
            )
            raise DeviceError(
                f"the port {port} of {name} {why}; name another one, or browser alone for any free port"
            ) from None
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self.secret}/"

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_of: ClassVar[PageServer]

    def do_GET(self) -> None:
        """A file of the page, or its next job."""
        kind, _, name = self._path().partition("/")
        match kind:
            case "":
                self._send(PAGE.read_bytes(), "text/html")
            case "ort" if re.fullmatch(r"[\w.-]+", name) and (file := self._script(name)):
                self._send(file.read_bytes(), TYPES[file.suffix])
            case "model" if name.isdecimal() and (model := self.server_of.models.get(int(name))):
                self._send(model, "application/octet-stream")
            case "next":
                try:
                    job = self.server_of.jobs.get(timeout=POLL_S)
                except Empty:
                    self._send(b"", "text/plain", status=204)
                else:
                    self._send(json.dumps(job).encode(), "application/json")
            case _:
                self._send(b"", "text/plain", status=404)

    def do_POST(self) -> None:
        """The page's answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._path() != "answer":
            self._send(b"", "text/plain", status=404)
            return
        try:
            answer = json.loads(body)
        except ValueError:
            answer = body.decode("utf-8", "replace")
        self.server_of.answers.put(answer)
        self._send(b"{}", "application/json")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _path(self) -> str:
        """What is asked for; something that does not exist without the secret."""
        start = f"/{self.server_of.secret}/"
        return self.path.removeprefix(start) if self.path.startswith(start) else "?"

    def _script(self, name: str) -> Path | None:
        file = self.server_of.scripts / name
        return file if file.suffix in TYPES and file.is_file() else None

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            # Isolated from other origins, a page gets clocks of 5 microseconds instead of 100.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the browser is gone
