"""A finished run of the main job, as tests look at it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "run.json").read_text()))

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "ledger.jsonl").read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.ledger if entry["event"] == name]

    def contents(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.path.iterdir() if p.is_file()}

    def assert_nothing_done_twice(self) -> None:
        judged = Counter((entry["step"], entry["digest"]) for entry in self.events("trial"))
        controls = Counter(entry["step"] for entry in self.events("control"))
        trained = Counter(entry["name"] for entry in self.events("trained"))
        verified = Counter(entry["digest"] for entry in self.events("verified"))
        assert trained
        assert verified
        assert bool(judged) == bool(controls) == (self.record["settings"]["method"] == "netadapt")
        for counted in (judged, controls, trained, verified):
            assert set(counted.values()) <= {1}
