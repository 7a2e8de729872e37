"""Make a folder in which exported files can be run by ARM builds of the runtimes, under qemu.

python scripts/make_arm64_root.py FOLDER      (as root; needs debootstrap, dpkg and pip)

Then: BNECK_ARM64_ROOT=FOLDER pytest -m slow tests/test_arm.py. What runs there says whether files are
right on ARM, never how fast they are.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGES = ("ai-edge-litert", "flatbuffers", "numpy", "onnxruntime")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "any")
# Engines ask the system which core they run on. It must be the one that qemu is told to be (a
# Cortex-A76): told another one, or none, they crash.
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def main(root: Path) -> None:
    """Debian's python3 for arm64, the runtimes' wheels beside it, and a core that is described."""
    debian = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", "--include=python3"]
    subprocess.run([*debian, "bookworm", str(root)], check=True)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    wheels = root / "wheels"
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    fetch += ["--python-version", "3.11", "-d", str(wheels)]
    for platform in PLATFORMS:
        fetch += ["--platform", platform]
    subprocess.run([*fetch, *PACKAGES], check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(root / "packages")
        wheel.unlink()
    cpus = root / "sys/devices/system/cpu"
    for path, text in (
        (root / "proc/cpuinfo", CPUINFO),
        (cpus / "possible", "0\n"),
        (cpus / "present", "0\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
