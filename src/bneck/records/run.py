"""The run folder of a search: what `run.json` holds, and where its other files lie.

`run.json` is rewritten whole at the end of every stage; the ledger next to it is appended trial by
trial. A report is made from these alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from bneck.records.files import write_json
from bneck.records.upgrade import upgraded
from bneck.specs.errors import InputError

FORMAT = 2
OLDER = (1,)  # formats that are read, as today's


class ProposalRecord(TypedDict):
    """What a step or trial changed: `kind` is "expansion" or "bottleneck"; widths in channels."""

    kind: str
    rows: list[int]
    before: int
    after: int


class StepRecord(TypedDict):
    """One accepted step; `accuracy` is the run's metric on held-out images after the short fine-tuning."""

    number: int
    proposal: ProposalRecord
    digest: str
    estimated_ms: float
    accuracy: float
    trials: int


class NetworkRecord(TypedDict, total=False):
    """One network of the run. `scores`, of the run's metric, and `loss` have one value a final training.

    `measured_ms` is the median paced wall time, `measurement` its whole record. `width` is the
    multiplier of a uniform-width baseline. `heldout_score` is that of this very network: it is missing
    where the network was widened after the last step, whose record has the narrower network's.
    """

    name: str
    digest: str
    spec: str
    params: int
    madds: int
    estimated_ms: float
    measured_ms: float
    measurement: dict[str, Any]
    heldout_score: float
    scores: list[float]
    loss: list[float | None]
    width: float


class StageRecord(TypedDict):
    """One stage of the run and the wall time it took, over all resumes."""

    name: str
    seconds: float


class SearchRecord(TypedDict, total=False):
    """`run.json` of a search. Shares are of 1, times in the unit of their name."""

    format: int
    kind: str
    state: str  # "running" or "finished"
    version: str
    commit: str
    command: str
    started: str
    finished: str
    task: str
    metric: str  # of all scores: "top-1", "mAP", ...
    wrapper: dict[str, Any]  # what stands around every network, as its task keeps it
    classes: list[str]
    settings: dict[str, Any]
    data: dict[str, Any]  # name, path, splits, left_out [[what, why], ...], heldout
    device: dict[str, Any]
    runtime: str
    runtime_version: str
    precision: str
    table: dict[
        str, Any
    ]  # entries, rounding, scale, offset_ms, networks, median, p95, reference, reference_ms
    target: str  # as the user wrote it: "5ms", "70%"
    target_ms: float
    meets_target: bool
    measured_latency_ms: float
    estimated_latency_ms: float
    score: float  # mean over the final trainings
    baseline: dict[str, float]  # latency_ms, score of the uniform-width baseline
    seconds: float
    seed_network: NetworkRecord
    found: NetworkRecord
    uniform: NetworkRecord
    steps: list[StepRecord]
    blocks: dict[str, Any]  # a block search: space, aim_ms, table, trials, front, finalists
    stages: list[StageRecord]
    overhead_seconds: float  # proposing, shrinking, estimating: all of the search but training
    export: dict[str, Any]  # images, label_agreement, largest_difference
    shipped: dict[
        str, Any
    ]  # file, runtime, precision, score and the same; where that is not model.onnx


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def table(self) -> Path:
        return self.path / "table.jsonl"

    @property
    def space_table(self) -> Path:
        """The latency table of a block search's space."""
        return self.path / "space-table.jsonl"

    @property
    def found(self) -> Path:
        """Of a search for a detector or segmenter: what was found, as a run of that task."""
        return self.path / "found"

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def model(self) -> Path:
        return self.path / "model.onnx"

    @property
    def scratch(self) -> Path:
        """What only an unfinished run needs: packed images, trial weights, checkpoints."""
        return self.path / "scratch"

    def read(self) -> dict[str, Any]:
        """The run's record.

        Raises:
            InputError: no run folder, or one of a newer format.
        """
        if not self.run_json.is_file():
            raise InputError(f"{self.path} is not a run folder: it has no run.json")
        try:
            record = json.loads(self.run_json.read_text(encoding="utf-8"))
            version = record["format"]
        except (OSError, ValueError, LookupError, TypeError):
            raise InputError(f"{self.run_json} cannot be read as a run's record") from None
        if version == FORMAT:
            assert isinstance(record, dict)
            return record
        if version in OLDER:
            try:
                return upgraded(record)
            except (LookupError, TypeError, AttributeError):
                raise InputError(
                    f"{self.run_json} is a record of format {version} that lacks what its kind has; start a "
                    "new run"
                ) from None
        by = f"bneck {record['version']}" if "version" in record else "another version of bneck"
        raise InputError(
            f"{self.path} was written by {by} in run format {version}, and this version reads formats up to "
            f"{FORMAT}; open it with {by}"
        )

    def kind(self) -> str | None:
        """What kind of run the folder holds ("search", "segment", ...); None where it holds none.

        Raises:
            InputError: a run of another version.
        """
        return self.read().get("kind") if self.run_json.is_file() else None

    def write(self, record: SearchRecord) -> None:
        """Replace the run's record, whole or not at all."""
        write_json(self.run_json, record)


def task_run(path: str | Path) -> Path:
    """What a command means by a path: of a search for a detector or segmenter the run in its `found`."""
    folder = RunFolder(Path(path))
    return folder.found if folder.kind() == "search" and folder.found.is_dir() else folder.path
