"""Runs and networks on one page: the Python twin of `bneck compare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bneck.devices.measure import Candidate
from bneck.devices.measure import measure as measure_candidates
from bneck.devices.places import usual_runtime
from bneck.devices.protocol import Protocol
from bneck.records.files import write_text
from bneck.report.comparison import comparison_blocks
from bneck.report.page import html_page
from bneck.report.subjects import Subject, subjects
from bneck.runs.folder import check_file
from bneck.runs.measure import check_rounds
from bneck.specs.errors import InputError
from bneck.specs.text import to_text
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.registry import task


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was compared, and the page that shows it."""

    subjects: tuple[Subject, ...]
    page: Path

    def as_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        rows = [{**asdict(s), "spec": to_text(s.spec), "score": s.score} for s in self.subjects]
        return {"page": str(self.page), "subjects": rows}


def compare(
    *places: str | Path,
    measure: bool = False,
    rounds: int = 10,
    device: str = "local",
    runtime: str | None = None,
    threads: int = 1,
    out: str | Path = "compare.html",
    on_round: Callable[[int, int], None] | None = None,
) -> Compared:
    """Write one page about runs and networks: costs, scores, trade-off, blocks, differences.

    Args:
        places: run folders, spec files and names; the first is what the others are held against.
        measure: time all networks now, interleaved, instead of what runs recorded.
        rounds: of that timing.
        device: where, as in `bneck.measure`.
        runtime: its engine; None takes the device's usual one.
        threads: of the engine.
        out: the page to write.
        on_round: called with (rounds done, rounds).

    Raises:
        InputError: nothing to compare, or something that is neither run nor network.
    """
    check_file(Path(out), ".html")
    if measure:
        check_rounds(threads, rounds)
    found = [subject for place in places for subject in subjects(place)]
    if not found:
        raise InputError(
            "there is nothing to compare; name runs or networks, as in: bneck compare v3-small v2-0.35"
        )
    if measure:
        found = _timed(found, rounds, device, runtime, threads, on_round)
    page = Path(out)
    rest = {1: "", 2: f" and {found[-1].label}"}.get(len(found), f" and {len(found) - 1} more")
    title = f"{found[0].label}{rest}"
    text = html_page(title, [*comparison_blocks(found)], head="bneck compare")
    write_text(page, text)
    return Compared(subjects=tuple(found), page=page)


def _timed(
    found: list[Subject], rounds: int, device: str, runtime: str | None, threads: int,
    on_round: Callable[[int, int], None] | None,
) -> list[Subject]:  # fmt: skip
    """The same with what stands around them, timed interleaved with random weights."""
    usual = runtime or usual_runtime(device)
    records = measure_candidates(
        [Candidate(one.spec, None, usual, wrapper=_wrapper(one)) for one in found],
        place=device,
        protocol=Protocol(threads=threads, rounds=rounds),
        on_round=on_round,
    )
    return [
        replace(
            subject, latency_ms=one.latency_ms.median, p10_ms=one.latency_ms.p10,
            p90_ms=one.latency_ms.p90,
            where=f"{one.device.processor}, {one.runtime} {one.runtime_version}, {threads} thread",
        )
        for subject, one in zip(found, records, strict=True)
    ]  # fmt: skip


def _wrapper(one: Subject) -> Wrapper:
    return task(one.task).restored(one.spec, one.wrapper, one.classes) if one.task else PLAIN
