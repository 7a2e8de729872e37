"""A server on loopback that answers the two calls a hub is asked: which commit a file is of, and its bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Files = dict[str, dict[str, bytes]]  # by "ORG/REPO", by name


def commit_of(repository: str) -> str:
    return hashlib.sha1(repository.encode()).hexdigest()


@contextmanager
def served(repositories: Files) -> Iterator[tuple[str, list[str]]]:
    """The server's address, and the list of what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            if repository not in repositories:
                self.refuse("RepoNotFound")
            elif revision not in ("main", commit_of(repository)):
                self.refuse("RevisionNotFound")
            elif name not in repositories[repository]:
                self.refuse("EntryNotFound")
            else:
                self.give(repositories[repository][name], name, commit_of(repository), with_body)

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def give(self, content: bytes, name: str, commit: str, with_body: bool) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            # The hub names large files by their sha256, small ones by git's hash.
            digest = hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1
            self.send_header("ETag", f'"{digest(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
