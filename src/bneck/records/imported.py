"""The record of an import, and what any run's record says of how its network is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from bneck.records.run import RunFolder
from bneck.specs.normalisation import IMAGENET, Normalisation


class SourceRecord(TypedDict):
    """The file that weights came from; `layout` is torchvision, timm, timm-tf, tflite, bneck or foreign
    (placed by order and shape).

    `repository` and `commit` are None for a file that was at hand, `license` where nobody names one.
    """

    file: str
    sha256: str
    bytes: int
    layout: str
    repository: str | None
    commit: str | None
    license: str | None


class Preprocessing(TypedDict):
    """How a publisher evaluates: the fraction of the resized image's side that is seen, and the filter."""

    crop: float
    interpolation: str  # nearest, bilinear, bicubic or lanczos


class ImportRecord(TypedDict):
    """`run.json` of an import.

    `classes` are the names of the classes in the order of the scores, `class_ids` other names of
    them (WNIDs); each is None where nobody said. `excused` are names that went unmatched.
    """

    format: int
    kind: str  # "import"
    state: str  # "finished"
    version: str
    commit: str
    command: str
    started: str
    finished: str
    name: str
    digest: str
    params: int
    madds: int
    padding: str
    bn_eps: float
    resolution: int
    class_count: int
    source: SourceRecord
    normalisation: dict[str, list[float]]
    preprocessing: Preprocessing | None
    classes: list[str] | None
    class_ids: dict[str, int] | None
    excused: list[str]
    notes: list[str]


def normalisation(folder: RunFolder) -> Normalisation:
    """What input the folder's weights were made for; ImageNet's where its record says nothing.

    Raises:
        InputError: the record cannot be read.
    """
    if not folder.run_json.is_file():
        return IMAGENET
    record = folder.read()
    return (
        Normalisation.from_json(record["normalisation"]) if "normalisation" in record else IMAGENET
    )


def class_places(record: Mapping[str, Any]) -> dict[str, int] | None:
    """Index of a class by its name, or by another name of it; None where the record has no names."""
    names = record.get("classes") or (record.get("data") or {}).get("classes") or ()
    places = {str(name): index for index, name in enumerate(names)}
    if len(places) < len(names):
        places = {}  # two classes of one name
    return {**places, **(record.get("class_ids") or {})} or None
