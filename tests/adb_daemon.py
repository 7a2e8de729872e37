"""A stand-in for adbd, the daemon on Android devices: enough of its protocol for the real adb client.

It speaks CNXN, OPEN, OKAY, WRTE and CLSE, "shell:" and, of "sync:", STAT and SEND. Its phone is a
folder: /data and /sys of a command are taken from there, and so are programs in its bin/.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

HEADER = struct.Struct("<4s5I")
BANNER = (
    b"device::ro.product.name=folder;ro.product.model=Folder;ro.product.device=folder;features="
)


class Daemon:
    """Listens on a port of loopback until it is dropped; it may be started again on the same one."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root
        self.commands: list[str] = []
        self.port = port
        self.start()

    def start(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def drop(self) -> None:
        """As if the cable were pulled."""
        for one in (self._server, *self._clients):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=Connection(self, client).serve, daemon=True).start()


class Connection:
    """One client, which is adb's server; several streams at a time, each a thread."""

    def __init__(self, daemon: Daemon, client: socket.socket) -> None:
        self.daemon, self.client = daemon, client
        self.lock = threading.Lock()
        self.inboxes: dict[int, Stream] = {}

    def serve(self) -> None:
        try:
            while True:
                kind, first, _, length, *_ = HEADER.unpack(self._exactly(HEADER.size))
                data = self._exactly(length)
                if kind == b"CNXN":
                    self.send(b"CNXN", 0x01000000, 1 << 18, BANNER)
                elif kind == b"OPEN":
                    stream = self.inboxes[first] = Stream(self, first)
                    name = data.rstrip(b"\0").decode()
                    threading.Thread(target=stream.run, args=(name,), daemon=True).start()
                elif kind == b"WRTE" and first in self.inboxes:
                    self.send(b"OKAY", first, first)
                    self.inboxes[first].receive(data)
                elif kind == b"OKAY" and first in self.inboxes:
                    self.inboxes[first].ready.release()
                elif kind == b"CLSE":
                    self.inboxes.pop(first, None)
        except (OSError, EOFError):
            self.client.close()

    def send(self, kind: bytes, first: int, second: int, data: bytes = b"") -> None:
        magic = int.from_bytes(kind, "little") ^ 0xFFFFFFFF
        header = HEADER.pack(kind, first, second, len(data), sum(data) & 0xFFFFFFFF, magic)
        with self.lock:
            self.client.sendall(header + data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.client.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class Stream:
    """A service that the client has opened; both ends go by the client's number for it."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection, self.number = connection, number
        self.ready = threading.Semaphore(0)  # the client has taken the last write
        self.arrived = threading.Condition()
        self.buffer = b""

    def run(self, name: str) -> None:
        try:
            self.connection.send(b"OKAY", self.number, self.number)
            if name.startswith("shell:"):
                self.shell(name.removeprefix("shell:"))
            elif name == "sync:":
                self.sync()
            self.connection.send(b"CLSE", self.number, self.number)
        except OSError:
            pass  # dropped

    def receive(self, data: bytes) -> None:
        with self.arrived:
            self.buffer += data
            self.arrived.notify()

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 16):
            self.connection.send(b"WRTE", self.number, self.number, data[start : start + (1 << 16)])
            self.ready.acquire(timeout=10)

    def read(self, count: int) -> bytes:
        with self.arrived:
            self.arrived.wait_for(lambda: len(self.buffer) >= count, timeout=10)
            data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def shell(self, command: str) -> None:
        daemon = self.connection.daemon
        daemon.commands.append(command)
        command = re.sub(r"(?<!\w)(/data/|/sys/)", rf"{daemon.root}\1", command)
        done = subprocess.run(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"PATH": f"{daemon.root}/bin:{os.environ['PATH']}"},
            check=False,
        )
        self.write(done.stdout)

    def sync(self) -> None:
        while (kind := self.read(4)) not in (b"QUIT", b""):
            (length,) = struct.unpack("<I", self.read(4))
            name, _, mode = self.read(length).decode().partition(",")
            path = self.connection.daemon.root / name.lstrip("/")
            if kind == b"STAT":
                facts = path.stat() if path.exists() else None
                numbers = (
                    (facts.st_mode, facts.st_size, int(facts.st_mtime)) if facts else (0, 0, 0)
                )
                self.write(b"STAT" + struct.pack("<3I", *numbers))
                continue
            assert kind == b"SEND", kind
            content = b""
            while self.read(4) == b"DATA":
                content += self.read(struct.unpack("<I", self.read(4))[0])
            self.read(4)  # behind DONE: when it was changed
            path.write_bytes(content)
            path.chmod(int(mode) & 0o777)
            self.write(b"OKAY" + struct.pack("<I", 0))
