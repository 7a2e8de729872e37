"""What this machine has for bneck: versions, runtimes, cores, GPUs, disk, caches, and what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bneck.devices.installed import EXTRAS, lacking
from bneck.devices.machine import CPUS, Machine
from bneck.devices.places.local import processor
from bneck.devices.runtimes import RUNTIMES, MissingRuntime
from bneck.records.commit import commit
from bneck.records.files import cache_folder

CPUINFO = Path("/proc/cpuinfo")
TOOLS = ("ssh", "adb")  # what reaches other devices
_GPU = Path("/dev/nvidia0")


def doctor(folder: str | Path = ".") -> dict[str, Any]:
    """Look at this machine; nothing is changed, measured or downloaded.

    Args:
        folder: where runs go; its disk is looked at.

    Returns:
        Plain values for json: `bneck`, `commit`, `python`, `system`, `processor`, `cores` (number, whether
        this process may use it, clocks in MHz or None), `memory_gb`, `gpus`, `notes`, `runtimes` (version or
        None, precisions, how to install it), `tools`, `disk` (free and all, in GB), `caches` (files, MB),
        `extras` (packages with versions or None) and `missing` (extra, packages, the command to install it).
    """
    gpus, notes = _gpus()
    return {
        "bneck": metadata.version("bneck"),
        "commit": commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": gpus,
        "notes": notes,
        "runtimes": list(_runtimes()),
        "tools": {name: shutil.which(name) for name in TOOLS},
        "disk": [_disk("runs", Path(folder)), _disk("caches", cache_folder(""))],
        "caches": caches(cache_folder(""), hub_cache()),
        "extras": [
            {"name": one.name, "purpose": one.purpose, "packages": one.packages()} for one in EXTRAS
        ],
        "missing": [
            {
                "extra": one.name,
                "purpose": one.purpose,
                "packages": packages,
                "install": one.install,
            }
            for one, packages in lacking()
        ],
    }


def cores(
    cpus: Path = CPUS, cpuinfo: Path = CPUINFO, allowed: Iterable[int] | None = None
) -> list[dict[str, Any]]:
    """Each core with its highest clock and the present one in MHz, None where the system tells neither.

    Args:
        cpus: where the system describes its cores.
        cpuinfo: where it tells their present clocks.
        allowed: the cores that this process may use; None asks the system.
    """
    machine = Machine(cpus=cpus)
    usable = set(_allowed() if allowed is None else allowed)
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    now = dict(zip(_numbers(r"processor", text), _numbers(r"cpu MHz", text), strict=False))
    known = {int(core) for core in now} or set(range(os.cpu_count() or 1))
    return [
        {
            "core": core,
            "usable": core in usable,
            "max_mhz": round(machine.clock(core) / 1000) or None,
            "mhz": round(now[core]) if core in now else None,
        }
        for core in sorted(known | usable)
    ]


def caches(own: Path, hub: Path) -> list[dict[str, Any]]:
    """Files and size of each part of bneck's own cache, and of the hub's; of those that are there."""
    parts = [(path.name, path) for path in sorted(own.glob("*")) if path.is_dir()]
    found = []
    for what, path in [*parts, *([("hub", hub)] if hub.is_dir() else [])]:
        # A hub's cache holds each file once, under blobs; its names in snapshots are links.
        files = [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
        size = round(sum(one.stat().st_size for one in files) / 1e6, 3)
        found.append({"what": what, "folder": str(path), "files": len(files), "size_mb": size})
    return found


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    if find_spec("huggingface_hub"):
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)
    return Path.home() / ".cache/huggingface/hub"


def _runtimes() -> Iterator[dict[str, Any]]:
    for name, make in RUNTIMES.items():
        found: dict[str, Any] = {
            "name": name, "version": None, "precisions": [], "install": None, "problem": None,
        }  # fmt: skip
        try:
            engine = make()
            found |= {"version": engine.version, "precisions": list(engine.precisions)}
        except MissingRuntime as missing:
            found["install"] = missing.install
        except Exception as error:  # a damaged package may raise anything
            found["problem"] = f"{type(error).__name__}: {error}".partition("\n")[0]
        yield found


def _gpus() -> tuple[list[dict[str, Any]], list[str]]:
    """The GPUs that torch can use, and what keeps it from one that is there."""
    if not find_spec("torch"):
        return [], []
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = torch.cuda.is_available()
    if there:
        known = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [
            {"name": one.name, "memory_gb": round(one.total_memory / 1e9, 1)} for one in known
        ], []
    if _GPU.exists():
        why = "is built without CUDA" if torch.version.cuda is None else "cannot reach it (driver?)"
        return [], [
            f"there is an NVIDIA GPU, and torch {torch.__version__} {why}: training uses the processor"
        ]
    return [], []


def _disk(what: str, folder: Path) -> dict[str, Any]:
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return {
        "what": what,
        "folder": str(folder.resolve()),
        "free_gb": round(usage.free / 1e9, 1),
        "total_gb": round(usage.total / 1e9, 1),
    }


def _allowed() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # macOS pins nothing
        return set(range(os.cpu_count() or 1))


def _numbers(name: str, text: str) -> list[float]:
    return [float(one) for one in re.findall(rf"^{name}\s*:\s*([\d.]+)$", text, re.MULTILINE)]
