"""The page with a classifier in it: what the server hands out, and what the browser makes of it."""

from __future__ import annotations

import html
import json
import os
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bneck.devices.places.page_server import Page, PageServer
from bneck.nets.build import build
from bneck.runs.demo import SCRIPTS, WEB, demo
from bneck.runs.files import write_file
from bneck.runs.predict import predict
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.classify.task import ClassifyOptions
from bneck.tasks.registry import task
from browser import CHROMIUM, look
from commands import Call, refusal

NAMES = ["circle", "<i>square", "stripes"]
PACKAGE = Path(os.environ.get(WEB) or "node_modules/onnxruntime-web")


@pytest.fixture(scope="module")
def model(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file of a net that nobody trained; its weights are large enough to prefer a class."""
    import torch

    net = build(tiny, seed=3).eval()
    with torch.no_grad():
        net.get_parameter("classifier.weight").mul_(30)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    images = torch.from_numpy(
        np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    )
    chosen, options = task("classify"), ClassifyOptions()
    write_file(chosen, net, path, images, record={"classes": NAMES}, options=options)
    return path


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A folder with files of onnxruntime-web's names."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    for name in SCRIPTS:
        (folder / "dist" / name).write_text(f"// {name}")
    (folder / "dist" / "secret.txt").write_text("no")
    return folder


def fetch(address: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_the_server_hands_out_its_pages_and_nothing_else(model: Path, web: Path) -> None:
    with demo(model, onnxruntime_web=web) as server:
        assert server.address.startswith("http://127.0.0.1:")
        status, page, headers = fetch(server.address)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "script-src 'self' 'wasm-unsafe-eval'" in headers["Content-Security-Policy"]
        assert len(page) < 1_000_000
        assert fetch(server.address + "model.onnx")[1] == model.read_bytes()
        assert fetch(server.address + f"ort/{SCRIPTS[2]}")[2]["Content-Type"] == "application/wasm"
        facts = json.loads(fetch(server.address + "model.json")[1])
        assert (facts["classes"], facts["resolution"], facts["stored"]) == (NAMES, 32, 37)
        for path in ("ort/secret.txt", "picture", "../run.json", "ort/../../model.onnx", "x"):
            assert fetch(server.address + path)[0] == 404
        assert fetch(server.address, Host="evil.example:80")[0] == 403


def test_the_folder_may_be_the_dist_or_stand_in_the_environment(
    model: Path, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with demo(model, onnxruntime_web=web / "dist") as server:
        assert fetch(server.address + f"ort/{SCRIPTS[0]}")[0] == 200
    monkeypatch.setenv(WEB, str(web))
    with demo(model) as server:
        assert fetch(server.address + f"ort/{SCRIPTS[0]}")[0] == 200


def test_one_that_hangs_up_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    """A reader that goes away in the middle of a large answer is no error; others are served on."""
    pages = {"/": Page(b"x" * 20_000_000, "text/plain"), "/small": Page(b"y", "text/plain")}
    with PageServer(lambda path, body: pages.get(path), headers={}) as server:
        port = int(server.address.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
            line.recv(10)
        assert fetch(server.address + "small")[1] == b"y"
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_told(model: Path, web: Path) -> None:
    with demo(model, onnxruntime_web=web) as server:
        port = int(server.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match=f"port {port} cannot be listened on"):
            demo(model, onnxruntime_web=web, port=port)
    with pytest.raises(InputError, match="port 70000 cannot be listened on"):
        demo(model, onnxruntime_web=web, port=70_000)


def test_bad_input_ends_in_one_sentence(
    call: Call, model: Path, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEB, raising=False)
    other = tmp_path / "model.tflite"
    other.write_bytes(b"x")
    for arguments, said in (
        ([str(model)], "the page needs onnxruntime-web; give the folder of the npm package"),
        ([str(model), "--onnxruntime-web", str(tmp_path)], f"{tmp_path} is not onnxruntime-web"),
        ([str(tmp_path / "no")], f"{tmp_path / 'no'} has no model.onnx"),
        ([str(other), "--onnxruntime-web", str(web)], f"{other} is no .onnx file"),
        (
            [str(model), "--onnxruntime-web", str(web), "--picture", "no.png"],
            "no.png is no file; give a picture",
        ),
    ):
        assert refusal(call("demo", *arguments)).startswith(said)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.skipif(
    not (PACKAGE / "dist").is_dir(), reason=f"onnxruntime-web is not here; its folder goes in {WEB}"
)
def test_the_browser_answers_as_predict_does(model: Path, tmp_path: Path) -> None:
    """The same classes in the same order, shares within two points: only resizing is the browser's."""
    picture = tmp_path / "picture.png"
    y, x = np.mgrid[0:90, 0:120]
    planes = [128 + 100 * np.sin(x / 17), 90 + y, 200 - 100 * np.cos((x + y) / 23)]
    Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(picture)
    with demo(model, onnxruntime_web=PACKAGE, picture=picture) as server:
        seen = look(server.address, wait_ms=10_000)
    assert seen.console == []
    assert re.search("Looked at this picture.*, one thread", seen.dom)
    found = [
        (html.unescape(name), float(share) / 100)
        for name, share in re.findall(
            r'<span>([^<]*)</span><span class="share">([\d.]+) %', seen.dom
        )
    ]
    wanted = predict(model, [picture])[0]["classes"]
    assert [name for name, _ in found] == [best["label"] for best in wanted]
    np.testing.assert_allclose([s for _, s in found], [b["score"] for b in wanted], atol=0.02)
