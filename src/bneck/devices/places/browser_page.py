"""The page that measures in a browser, at an address that nobody can guess."""

from __future__ import annotations

import errno
import json
import re
import secrets
from http import HTTPStatus
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from bneck.devices.places.contract import DeviceError
from bneck.devices.places.page_server import Page, PageServer

PAGE = Path(__file__).with_name("browser.html")
POLL_S = 20.0  # how long the page waits for a job before it asks again
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
# Isolated from other origins, a page gets clocks of 5 microseconds instead of 100.
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class BrowserPage:
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
        try:
            self._server = PageServer(self._page, headers=ISOLATED, port=port)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = "is in use" if in_use else f"is refused ({error.strerror})"
            raise DeviceError(
                f"the port {port} of {name} {why}; name another one, or browser alone for any free port"
            ) from None

    @property
    def url(self) -> str:
        """Of the page."""
        return f"{self._server.address}{self.secret}/"

    def stop(self) -> None:
        """Serve no more."""
        self._server.stop()

    def _page(self, path: str, body: bytes | None) -> Page | None:
        """A file of the page or its next job; a body is the page's answer."""
        start = f"/{self.secret}/"
        if not path.startswith(start):
            return None  # nothing exists without the secret
        kind, _, name = path.removeprefix(start).partition("/")
        if body is not None:
            return self._take(body) if (kind, name) == ("answer", "") else None
        match kind:
            case "":
                return Page(PAGE, "text/html")
            case "ort" if re.fullmatch(r"[\w.-]+", name):
                file = self.scripts / name
                known = file.suffix in TYPES and file.is_file()
                return Page(file, TYPES[file.suffix]) if known else None
            case "model" if name.isdecimal() and (model := self.models.get(int(name))):
                return Page(model, "application/octet-stream")
            case "next":
                try:
                    job = self.jobs.get(timeout=POLL_S)
                except Empty:
                    return Page(b"", status=HTTPStatus.NO_CONTENT)
                return Page(json.dumps(job).encode(), "application/json")
        return None

    def _take(self, body: bytes) -> Page:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = body.decode("utf-8", "replace")
        self.answers.put(answer)
        return Page(b"{}", "application/json")
