"""An exported classifier on a page in the browser: the Python twin of `bneck demo`."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Any

from bneck.data.pack import stored_side
from bneck.devices.places.page_server import Page, PageServer
from bneck.records.run import RunFolder
from bneck.report.demo_page import DEMO_SCRIPT, POLICY, demo_page, model_json
from bneck.runs.answers import FileAnswers, image_size
from bneck.specs.errors import InputError
from bneck.tasks.registry import DEFAULT

WEB = "BNECK_ONNXRUNTIME_WEB"
SCRIPTS = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
HTML, JSON, JAVASCRIPT = "text/html; charset=utf-8", "application/json", "text/javascript"
TYPES = {".js": JAVASCRIPT, ".mjs": JAVASCRIPT, ".wasm": "application/wasm"}


def demo(
    run: str | Path,
    *,
    onnxruntime_web: str | Path | None = None,
    picture: str | Path | None = None,
    port: int = 0,
) -> PageServer:
    """A server of a page in which a classifier looks at pictures or through the camera.

    The page runs the exported file by onnxruntime-web, one thread of WebAssembly, and answers as
    `bneck.predict` does but for the browser's own way of resizing. It listens on loopback alone.

    Args:
        run: a finished run's folder, or an .onnx file that export has written.
        onnxruntime_web: the folder of the npm package of that name; None takes the environment's
            BNECK_ONNXRUNTIME_WEB.
        picture: one to begin with.
        port: to listen on; 0 takes a free one.

    Returns:
        The server; it serves until its `stop`, which the end of a `with` calls.

    Raises:
        InputError: no classifier there, no onnxruntime-web, no such picture, a port that is taken.
    """
    path = Path(run)
    model = RunFolder(path).model if path.is_dir() else path
    facts = _facts(path, model)
    scripts = web_scripts(onnxruntime_web)
    pages = {
        "/model.onnx": Page(model, "application/octet-stream"),
        "/demo.js": Page(DEMO_SCRIPT.encode(), JAVASCRIPT),
        **{f"/ort/{file.name}": Page(file, TYPES[file.suffix]) for file in scripts},
    }
    if picture is not None:
        shown = Path(picture)
        if not shown.is_file():
            raise InputError(f"{shown} is no file; give a picture, or leave --picture out")
        kind = mimetypes.guess_type(shown.name)[0] or "application/octet-stream"
        pages["/picture"] = Page(shown, kind)
        facts["picture"] = True
    size = model.stat().st_size / 1e6
    sentence = (
        f"{facts['network']}, {facts['precision']}, {len(facts['classes'])} classes, "
        f"{facts['resolution']} px, {size:.1f} MB."
    )
    pages["/model.json"] = Page(model_json(facts).encode(), JSON)
    pages["/"] = Page(demo_page(f"{path.resolve().name} in the browser", sentence).encode(), HTML)
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    try:
        return PageServer(
            lambda page, body: pages.get(page) if body is None else None, headers=headers, port=port
        )
    except OSError as error:
        raise InputError(
            f"port {port} cannot be listened on: {error.strerror or error}; choose another --port"
        ) from None


def web_scripts(folder: str | Path | None = None) -> list[Path]:
    """The files of onnxruntime-web that the page needs.

    Raises:
        InputError: nobody said where it is, or something else is there.
    """
    how = "give the folder of the npm package (node_modules/onnxruntime-web) by --onnxruntime-web"
    given = folder if folder is not None else os.environ.get(WEB)
    if not given:
        raise InputError(f"the page needs onnxruntime-web; {how} or in {WEB}")
    for place in (Path(given) / "dist", Path(given)):
        files = [place / name for name in SCRIPTS]
        if all(file.is_file() for file in files):
            return files
    raise InputError(
        f"{given} is not onnxruntime-web, it lacks dist/{SCRIPTS[0]}; {how} or in {WEB}"
    )


def _facts(path: Path, model: Path) -> dict[str, Any]:
    if not model.is_file():
        raise InputError(
            f"{path} has no model.onnx; give a finished run's folder or an exported .onnx file"
        )
    if model.suffix != ".onnx":
        raise InputError(
            f"{model} is no .onnx file, which the page runs; export one with: bneck export"
        )
    answers = FileAnswers(model)
    if answers.task.name != DEFAULT:
        raise InputError(f"{model} is made to {answers.task.name}; the page takes classifiers")
    side = image_size(answers.metadata)[0]
    return {
        "network": answers.spec.name,
        "precision": answers.metadata.get("precision", "fp32"),
        "classes": list(answers.labels),
        "resolution": side,
        "stored": stored_side(side),
        "pixels": answers.metadata.get("input") == "pixels",
        "mean": list(answers.normalisation.mean),
        "std": list(answers.normalisation.std),
        "picture": False,
    }
