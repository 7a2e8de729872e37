"""What decoded images may take: a part of the memory that there is."""

from __future__ import annotations

from pathlib import Path

from bneck.data.memory import available_bytes, room

GB = 1 << 30


def test_half_of_what_is_free_goes_to_all_sets_of_all_processes() -> None:
    assert room(3, 8, available=48 * GB) == GB
    assert room(1, 1, available=GB) == GB // 2
    assert room(3, 1, available=64 * GB) == 2 * GB  # never more
    assert room(3, 4, available=0) == 0
    assert 3 * 64 * room(3, 64) <= available_bytes(cgroup=Path("nowhere"))


def test_what_is_free_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:  16000 kB\nMemAvailable:  8000 kB\nHugePages_Total:  0\n")
    assert available_bytes(meminfo, cgroup) == 8_192_000
    cgroup.mkdir()
    for name, text in (
        ("memory.max", "6000000"), ("memory.current", "5000000"),
        ("memory.stat", "anon 3\ninactive_file 1000000\n"),
    ):  # fmt: skip
        (cgroup / name).write_text(text)
    assert available_bytes(meminfo, cgroup) == 2_000_000
    (cgroup / "memory.max").write_text("max\n")
    assert available_bytes(meminfo, cgroup) == 8_192_000
    assert available_bytes(tmp_path / "none", tmp_path / "none") > GB // 4
