"""The page in which an exported classifier looks at pictures, in the browser of whoever opens it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bneck.report.numbers import printable
from bneck.report.style import STYLE
from bneck.report.tables import html_text

POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src 'self' blob: data:; media-src blob:; object-src 'none'; base-uri 'none'"
)

_STYLE = """\
.buttons + .note { margin: 0.8rem 0 0; }
.stage { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1.5rem 0; }
.seen { flex: 0 1 20rem; min-width: min(100%, 15rem); }
.seen canvas {
  width: 100%; aspect-ratio: 1; display: block; background: var(--tint);
  border: 1px solid var(--line); border-radius: 6px;
}
.answers { flex: 1 1 18rem; list-style: none; padding: 0; margin: 0; columns: auto; font-size: 1rem; }
.answers li { display: grid; grid-template-columns: 1fr 4rem; margin-bottom: 0.7rem; }
.answers .share { text-align: right; font-variant-numeric: tabular-nums; }
.answers .bar { grid-column: 1 / -1; height: 6px; border-radius: 3px; background: var(--tint); }
.answers .bar i { display: block; height: 100%; border-radius: 3px; background: var(--accent); }
.answers li:first-child { font-weight: 650; }
.buttons { display: flex; flex-wrap: wrap; gap: 0.7rem; }
.buttons label, .buttons button {
  font: inherit; color: var(--paper); background: var(--accent); border: 0; border-radius: 5px;
  padding: 0.5rem 1rem; cursor: pointer;
}
.buttons button { background: none; color: var(--ink); border: 1px solid var(--soft); }
.buttons :focus-within, .buttons button:focus-visible { outline: 2px solid var(--ink); }
.buttons input { position: absolute; opacity: 0; width: 1px; height: 1px; }
body.over main { outline: 3px dashed var(--accent); outline-offset: -1rem; }
"""


def demo_page(title: str, facts: str) -> str:
    """The html; its script is `DEMO_SCRIPT`, its model's facts are `model.json`."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html_text(title)}</title>
<link rel="icon" href="data:,">
<style>
{STYLE}{_STYLE}</style>
</head>
<body>
<main>
<p class="head">bneck demo</p>
<h1>{html_text(title)}</h1>
<p>{html_text(facts)} It runs in this browser; no picture leaves it.</p>
<div class="buttons">
<label>Choose a picture<input type="file" id="file" accept="image/*"></label>
<button type="button" id="camera">Use the camera</button>
</div>
<p class="note" id="state" role="status">Loading the network.</p>
<div class="stage">
<div class="seen"><canvas id="seen" width="1" height="1" role="img" aria-label="What the network sees">
</canvas><p class="note">What the network sees</p></div>
<ol class="answers" id="answers"></ol>
</div>
</main>
<script src="ort/ort.wasm.min.js"></script>
<script src="demo.js"></script>
</body>
</html>
"""


def model_json(facts: Mapping[str, Any]) -> str:
    """What the script has to know of the model; class names made safe to show."""
    return json.dumps({**facts, "classes": [printable(str(name)) for name in facts["classes"]]})


DEMO_SCRIPT = """\
"use strict";
const TOP = 5;
const state = document.getElementById("state");
const seen = document.getElementById("seen");
const answers = document.getElementById("answers");
const camera = document.getElementById("camera");
const say = (text) => { state.textContent = text; };
const small = document.createElement("canvas");
let model, session, busy = false, stream = null;

async function start() {
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  ort.env.wasm.numThreads = 1;
  model = await (await fetch("model.json")).json();
  const bytes = await (await fetch("model.onnx")).arrayBuffer();
  session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  seen.width = seen.height = model.resolution;
  small.width = small.height = model.stored;
  say("Ready: choose a picture, drop one here, or use the camera.");
  if (model.picture) {
    const picture = await (await fetch("picture")).blob();
    await look(await createImageBitmap(picture));
  }
}

/* The middle square, made smaller by halves so that nothing is skipped, then its middle again. */
function crop(source, width, height) {
  const side = Math.min(width, height);
  let from = source, box = [(width - side) / 2, (height - side) / 2, side];
  while (box[2] >= 2 * model.stored) {
    const half = document.createElement("canvas");
    half.width = half.height = Math.floor(box[2] / 2);
    draw(half, from, box);
    from = half;
    box = [0, 0, half.width];
  }
  draw(small, from, box);
  const edge = Math.floor((model.stored - model.resolution) / 2);
  const context = seen.getContext("2d", { willReadFrequently: true });
  context.drawImage(small, -edge, -edge);
  return context.getImageData(0, 0, model.resolution, model.resolution).data;
}

function draw(canvas, source, box) {
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, box[0], box[1], box[2], box[2], 0, 0, canvas.width, canvas.height);
}

function tensor(pixels) {
  const side = model.resolution, plane = side * side;
  if (model.pixels) {
    const data = new Uint8Array(3 * plane);
    for (let i = 0; i < plane; i++)
      for (let c = 0; c < 3; c++) data[3 * i + c] = pixels[4 * i + c];
    return new ort.Tensor("uint8", data, [1, side, side, 3]);
  }
  const data = new Float32Array(3 * plane);
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < plane; i++)
      data[c * plane + i] = (pixels[4 * i + c] / 255 - model.mean[c]) / model.std[c];
  return new ort.Tensor("float32", data, [1, 3, side, side]);
}

async function look(source, width = source.width, height = source.height) {
  const input = tensor(crop(source, width, height));
  const begun = performance.now();
  const found = await session.run({ [session.inputNames[0]]: input });
  const took = performance.now() - begun;
  const scores = Array.from(found[session.outputNames[0]].data);
  const most = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  const best = powers.map((power, i) => [power / sum, i]).sort((a, b) => b[0] - a[0]).slice(0, TOP);
  answers.replaceChildren(...best.map(([share, i]) => {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.textContent = model.classes[i];
    const number = document.createElement("span");
    number.className = "share";
    number.textContent = (100 * share).toFixed(1) + " %";
    const bar = document.createElement("div"), fill = document.createElement("i");
    bar.className = "bar";
    fill.style.width = 100 * share + "%";
    bar.append(fill);
    item.append(name, number, bar);
    return item;
  }));
  const time = took > 0 ? " in " + took.toFixed(1) + " ms" : "";  // a browser's clock may be coarse
  say("Looked at this picture" + time + ", one thread, in this browser.");
}

async function open(file) {
  stop();
  try {
    await look(await createImageBitmap(file));
  } catch (error) {
    say("This picture cannot be read: " + error.message);
  }
}

function stop() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  camera.textContent = "Use the camera";
}

async function film() {
  if (stream) { stop(); return; }
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say("There is no camera to use: " + error.message);
    return;
  }
  camera.textContent = "Stop the camera";
  video.srcObject = stream;
  await video.play();
  const next = async () => {
    if (!stream) return;
    if (!busy && video.videoWidth) {
      busy = true;
      await look(video, video.videoWidth, video.videoHeight);
      busy = false;
    }
    requestAnimationFrame(next);
  };
  next();
}

document.getElementById("file").addEventListener("change", (event) => {
  if (session && event.target.files.length) open(event.target.files[0]);
});
camera.addEventListener("click", () => { if (session) film(); });
for (const kind of ["dragover", "dragleave", "drop"])
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && session && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });
start().catch((error) => say("The network cannot be started: " + error.message));
"""
