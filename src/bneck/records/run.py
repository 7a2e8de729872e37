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
    """One network of the run. `scores`, of the run's metric, and `loss` have one value per final training.

    `measured_ms` is the median wall time, divided by the slowdown factor; `measurement` its whole
    record. `width` is the multiplier of a uniform-width baseline, `title` how a network was made.
    `heldout_score` is missing where the network was widened after the last step, whose record has the
    narrower network's. `narrowed_from` is the seed network's score when it was narrowed; its `scores` are
    then of training it as long as all others.
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
    title: str
    narrowed_from: float


class StageRecord(TypedDict):
    """One stage of the run and the wall time it took, over all resumes."""

    name: str
    seconds: float


class SearchRecord(TypedDict, total=False):
    """`run.json` of a search. Fractions are of 1, times in the unit of their name."""

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
    # entries, rounding, scale, offset_ms, networks, median, p95, bias, reference, reference_ms
    table: dict[str, Any]
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
    # Which channels were kept, of wider weights (by the name of what began with them) and by NetAdapt's
    # proposals: `keep`, "fisher" or "l2"; with "fisher" also `images`, on how many it was measured, and of
    # weights `new_head`, whether through the head of other classes.
    inherited: dict[str, dict[str, Any]]
    channels: dict[str, Any]
    # Of a search from weights: where they are from, None for a run's; the input they were made for.
    source: dict[str, Any] | None
    normalisation: dict[str, list[float]]
    # Of a search by importance: what was cut, on how many images importance was measured, the role of the
    # network that ships; other networks that were compared; further targets, each with the same keys.
    allocation: dict[str, Any]
    others: dict[str, NetworkRecord]
    lose: dict[str, Any]  # with --lose: points, confidence, met, target, probes
    family: list[dict[str, Any]]
    blocks: dict[str, Any]  # a block search: space, aim_ms, table, trials, front, finalists
    stages: list[StageRecord]
    overhead_seconds: float  # proposing, shrinking, estimating: all of the search but training
    export: dict[str, Any]  # images, label_agreement, largest_difference
    # Of classifiers on val: images, wrong in found, seed and both, confused pairs, the worst images.
    mistakes: dict[str, Any]
    # file, runtime, precision, score and the same as export; only where that is not model.onnx
    shipped: dict[str, Any]


class _Inside:
    """An attribute that is a path inside the run folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: RunFolder, kind: type[RunFolder]) -> Path:
        return folder.path / self.name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path
    run_json = _Inside("run.json")
    ledger = _Inside("ledger.jsonl")
    table = _Inside("table.jsonl")
    space_table = _Inside("space-table.jsonl")  # the latency table of a block search's space
    found = _Inside(
        "found"
    )  # what a search for a detector or segmenter found, as a run of its task
    spec = _Inside("spec.yaml")
    weights = _Inside("weights.safetensors")
    model = _Inside("model.onnx")
    scratch = _Inside("scratch")  # what only an unfinished run needs: images, checkpoints

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
                what = f"a record of format {version} that lacks what its kind has"
                raise InputError(f"{self.run_json} is {what}; start a new run") from None
        by = f"bneck {record['version']}" if "version" in record else "another version of bneck"
        raise InputError(
            f"{self.path} was written by {by} in run format {version}, and this version reads formats up to "
            f"{FORMAT}; open it with {by}"
        )

    def kind(self) -> str | None:
        """The kind of run in the folder ("search", "train", ...), or None; InputError as `read`."""
        return self.read().get("kind") if self.run_json.is_file() else None

    def write(self, record: SearchRecord) -> None:
        """Replace the run's record, whole or not at all."""
        write_json(self.run_json, record)


def task_run(path: str | Path) -> Path:
    """What a command means by a path: of a search for a detector or segmenter the run in its `found`."""
    folder = RunFolder(Path(path))
    return folder.found if folder.kind() == "search" and folder.found.is_dir() else folder.path
