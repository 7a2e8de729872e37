"""A browser: onnxruntime-web in headless Chromium, on a page served on loopback alone."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import Any

from bneck.devices.machine import THIS
from bneck.devices.places.answers import AskedPlace, rubbish
from bneck.devices.places.browser_page import BrowserPage
from bneck.devices.places.channel import Child
from bneck.devices.places.contract import DeviceError, ImageSize, Lost
from bneck.devices.places.local import processor
from bneck.devices.places.scheduled import processes_of, running_share, times_of
from bneck.devices.timing import Burst, Timer
from bneck.records.measurement import Device

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ENTRY = "ort.wasm.min.mjs"  # onnxruntime-web without its GPU parts
FLAGS = (
    *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
    *("--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
    # A page that nobody looks at must not run slower for it.
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
)

# A browser outlives whoever started it; this shell ends it when our end of its stdin closes.
WATCHED = 'exec 3<&0; (read _ <&3; kill -KILL 0) & "$@" </dev/null 3<&-'


def port_in(name: str) -> int:
    """The port of "browser" or "browser:PORT"; 0 stands for any free one.

    Raises:
        DeviceError: it is none.
    """
    match = re.fullmatch(r"browser(?::(\d{1,5}))?", name)
    if match is None or int(match[1] or 1) not in range(1, 65536):
        raise DeviceError(
            f"there is no device {name!r}; write browser, or browser:PORT with a port from 1 to 65535"
        )
    return int(match[1] or 0)


def web_folder() -> tuple[Path, str]:
    """onnxruntime-web's folder of scripts, and its version; BNECK_ONNXRUNTIME_WEB is the npm package's.

    Raises:
        DeviceError: it is not set, or names another folder.
    """
    given = os.environ.get("BNECK_ONNXRUNTIME_WEB")
    how = "give the folder of the npm package (node_modules/onnxruntime-web) by --onnxruntime-web"
    if not given:
        raise DeviceError(f"the device browser needs onnxruntime-web; {how}")
    folder = Path(given)
    with suppress(OSError, ValueError, LookupError, TypeError):
        about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        if (folder / "dist" / ENTRY).is_file():
            return folder / "dist", str(about["version"])
    raise DeviceError(f"{folder} is not onnxruntime-web, it lacks dist/{ENTRY}; {how}")


def chromium() -> str:
    """Chromium's program; BNECK_CHROMIUM names another than the usual ones.

    Raises:
        DeviceError: there is none.
    """
    given = os.environ.get("BNECK_CHROMIUM")
    for program in [given] if given else PROGRAMS:
        if found := shutil.which(program):
            return found
    raise DeviceError(
        f"the device browser needs Chromium and there is no {given or ' or '.join(PROGRAMS)} here; "
        "install it, or name the program in BNECK_CHROMIUM"
    )


class Browser(AskedPlace):
    """A page in a browser of its own, on one thread of WebAssembly with SIMD.

    Raises:
        DeviceError: no Chromium, no onnxruntime-web, or a port in use.
        Lost: the page does not come up.
    """

    runtimes = ("onnxruntime",)
    start_s = 120.0

    def __init__(self, name: str, port: int = 0) -> None:
        super().__init__(name)
        scripts, self._version = web_folder()
        program = chromium()
        self._pages: list[int] = []
        self._server = BrowserPage(name, port, scripts)
        self._profile = tempfile.TemporaryDirectory(prefix="bneck-", ignore_cleanup_errors=True)
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
        self._browser = Child(
            [
                *("sh", "-c", WATCHED, "sh"),
                *(program, *FLAGS, *(["--no-sandbox"] if root else [])),
                *(f"--user-data-dir={self._profile.name}", self._server.url),
            ]
        )
        try:
            self._hello = self._checked({"id": 0}, self._answer(self.start_s))
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the browser's process group."""
        return self._browser.pid

    def describe(self) -> Device:
        """This machine, and the browser."""
        if not isinstance(agent := self._hello.get("agent"), str):
            raise rubbish(self._hello)
        found = re.search(r"(?:Headless)?Chrome/([\d.]+)", agent)
        browser = f"Chromium {found[1]}" if found else agent
        return Device(
            place=self.name,
            processor=f"{processor()}, {browser}",
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.machine()}, WebAssembly",
            pinned=False,
        )

    def version(self, runtime: str) -> str:
        return f"web {self._version}"

    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        """Hand a model file's bytes to the page, which also warms it up."""
        if threads != 1:
            raise DeviceError(f"{self.name} runs on one thread, not {threads}; leave --threads out")
        timer = super().load(model, runtime=runtime, threads=threads, size=size)
        self._pages = processes_of(self.pid, "--type=renderer")
        return timer

    def burst(self, held: int, runs: int, warmup: int) -> Burst:
        with THIS.turn():
            before = times_of(self._pages)
            burst = super().burst(held, runs, warmup)
            share = running_share(before, times_of(self._pages))
        if share is None:
            return burst
        # A page knows no CPU time; Linux's scheduler tells for which part of the burst it had a core.
        return replace(burst, cpu_ms=tuple(ms * share for ms in burst.wall_ms))

    def close(self) -> None:
        """End the browser and its page's server."""
        self._browser.close()
        self._server.stop()
        self._profile.cleanup()

    def _exchange(self, request: dict[str, Any], model: bytes, limit_s: float) -> object:
        self._server.models[request["id"]] = model
        self._server.jobs.put(request)
        try:
            return self._answer(limit_s)
        finally:
            del self._server.models[request["id"]]

    def _answer(self, limit_s: float) -> object:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            try:
                return self._server.answers.get(timeout=0.5)
            except Empty:
                if self._browser.ended:
                    raise self._browser.disconnected() from None
        raise Lost(f"did not answer within {limit_s:.0f} s")
