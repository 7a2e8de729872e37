"""Exported files on ARM builds of the runtimes, under qemu: right or wrong, never fast or slow.

BNECK_ARM64_ROOT is a folder that scripts/make_arm64_root.py has made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import bneck
from bneck.devices.models import network_model
from bneck.devices.runtimes import runtime
from bneck.specs.zoo import network

ROOT = Path(os.environ.get("BNECK_ARM64_ROOT", "/nowhere"))
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        QEMU is None or not (ROOT / "usr/bin/python3.11").exists(),
        reason="needs qemu-user and BNECK_ARM64_ROOT (scripts/make_arm64_root.py)",
    ),
]

RUN = """
import sys
from pathlib import Path
import numpy as np
import platform
from bneck.devices.runtimes import runtime
assert platform.machine() == "aarch64"
name, folder = sys.argv[1], Path(sys.argv[2])
session = runtime(name).load((folder / "model").read_bytes(), threads=1)
np.save(folder / "scores.npy", session.run(np.load(folder / "image.npy")))
"""


def run_on_arm(name: str, model: bytes, image: np.ndarray, folder: Path) -> np.ndarray:
    (folder / "model").write_bytes(model)
    np.save(folder / "image.npy", image)
    package = Path(str(bneck.__file__)).parents[1]
    # A core without SVE and SME: qemu 7.2 computes 8-bit products wrongly with them.
    command = [str(QEMU), "-cpu", "cortex-a76", "-L", str(ROOT)]
    command += [str(ROOT / "usr/bin/python3.11"), "-c", RUN, name, str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'packages'}"}
    subprocess.run(command, check=True, env=environment, timeout=300)
    return np.load(folder / "scores.npy")


@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
@pytest.mark.parametrize(
    ("spec", "precision"),
    [("v3-small@96", "fp32"), ("v3-small@96", "int8"), ("v3-large", "fp32"), ("v2@96", "int8")],
)
def test_arm_answers_as_this_machine_does(
    name: str, spec: str, precision: str, tmp_path: Path
) -> None:
    engine, net = runtime(name), network(spec)
    model = network_model(net, engine, precision)
    side = net.resolution
    image = np.random.default_rng(1).standard_normal((1, 3, side, side), dtype=np.float32)
    wanted = engine.load(model, threads=1).run(image)
    got = run_on_arm(name, model, image, tmp_path)
    assert np.isfinite(got).all()
    if precision == "fp32":  # sums in another order
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
        assert got.argmax() == wanted.argmax()
    else:  # ties that round differently add up; random weights leave few steps in the scores
        assert similarity(got, wanted) > 0.97


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of their angle. Wrong 8-bit arithmetic was seen to give 0.49."""
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))
