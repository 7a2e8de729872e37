"""Records of older formats, read as today's: the one door through which `RunFolder.read` lets them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def upgraded(record: Mapping[str, Any]) -> Record:
    """A record of format 1 as one of format 2; the file stays as it is.

    Format 1 had a kind for each task, and scores, classes, data and files at a place of each one's own.

    Raises:
        LookupError, TypeError: it lacks what its kind has.
    """
    kinds: dict[str, Callable[[Mapping[str, Any]], Record]] = {
        "classify": _classified,
        "detect": _detected,
        "segment": _segmented,
        "search": _searched,
    }
    change = kinds.get(str(record.get("kind")))
    found = {**record, **(change(record) if change else {}), "format": 2}
    if found.get("best"):
        found["best"] = {"chosen_on": "val", **found["best"]}
    return found


def _training(record: Mapping[str, Any], task: str, metric: str) -> Record:
    """What all trainings have in common."""
    settings = record["settings"]
    return {
        "kind": "train",
        "task": task,
        "metric": metric,
        "wrapper": {},
        "training": settings.get("training", {}),
        "options": {
            "start": settings.get("start"), "teacher": settings.get("teacher"), "stream": False,
            "bad_share": 0.01, "compute": None, "seed": settings.get("seed", 0), "task": {},
            **{k: settings[k] for k in ("stream", "bad_share") if k in settings},
        },
    }  # fmt: skip


def _data(path: str | None, splits: Mapping[str, int], left_out: Any, **more: Any) -> Record:
    name = "Fashion-MNIST (built in)" if path is None else Path(path).name
    return {"name": name, "path": path, "splits": dict(splits), "left_out": left_out or [], **more}


def _classified(record: Mapping[str, Any]) -> Record:
    found, settings = _training(record, "classify", "top-1"), record["settings"]
    data = record.get("data") or {}
    splits = {name: data.get(name, 0) for name in ("train", "val")}
    found["options"]["task"] = {"resolution": settings["resolution"]}
    found["classes"] = data.get("classes", [])
    found["data"] = _data(settings["data"], splits, data.get("bad"))
    if "top1" in record:
        keys = ("loss", "expected", "top5")
        found["scores"] = {
            "val": {
                "split": "val", "images": record["n"], "score": record["top1"],
                **{key: record.get(key) for key in keys},
            }
        }  # fmt: skip
        found["files"] = {"model.onnx": record["export"]}
    return found


def _detected(record: Mapping[str, Any]) -> Record:
    found, settings = _training(record, "detect", "mAP"), record["settings"]
    detector, data = record["detector"], record["data"]
    found["options"]["seed"] = settings["training"]["seed"]
    found["options"]["task"] = {
        "resolution": detector["resolution"], "images": settings["images"], "loss": settings["loss"],
    }  # fmt: skip
    found["wrapper"] = {
        "head": "ssdlite", "classes": len(record["classes"]), "extras": detector["extras"],
    }  # fmt: skip
    splits = {name: data[name][1] for name in ("train", "val")}
    found["data"] = _data(
        settings["data"], splits, data["dropped"], category_ids=record["category_ids"]
    )
    found["scores"] = {
        split: {**{k: v for k, v in one.items() if k != "AP"}, "score": one["AP"]}
        for split, one in record.get("evaluations", {}).items()
    }
    found["files"] = record.get("export", {})
    return found


def _segmented(record: Mapping[str, Any]) -> Record:
    found, settings = _training(record, "segment", "mIOU"), record["settings"]
    head, labels = record["segmenter"], record["labels"]
    export = record.get("export") or {}
    shape = settings["size"] or export.get("size") or settings["crop"]
    found["training"] = {
        "epochs": settings["epochs"], "batch": settings["batch"], "lr": settings["lr"],
        "schedule": "poly", "warmup": min(1.0, settings["epochs"] / 10), "weight_decay": 4e-5,
        "average": 0.99, "frozen": False,
    }  # fmt: skip
    found["options"]["task"] = {
        "head": head["head"], "filters": head["filters"], "global_pool": head["window"] == 0,
        **{name: settings[name] for name in ("classes", "ignore", "size", "crop", "balance")},
    }  # fmt: skip
    found["wrapper"] = {
        "head": head["head"], "filters": head["filters"], "classes": head["classes"],
        "output_stride": None, "global_pool": head["window"] == 0, "shape": shape,
    }  # fmt: skip
    found["classes"] = labels["names"]
    survey = record.get("survey") or {}
    found["data"] = _data(
        settings["data"], record["images"], [], labels=labels, shape=shape, crop=settings["crop"],
        pixels=survey.get("pixels", []),
    )  # fmt: skip
    found["scores"] = {
        one["split"]: {
            **{k: v for k, v in one.items() if k != "miou"}, "score": one["miou"], "loss": None,
            "shown": record.get("shown", []) if one["split"] == "val" else [],
        }
        for one in record.get("scores", [])
    }  # fmt: skip
    found["files"] = {"model.onnx": export} if export else {}
    return found


def _searched(record: Mapping[str, Any]) -> Record:
    data = record.get("data") or {}
    splits = {name: data.get(name, 0) for name in ("train", "val")}
    path = (record.get("settings") or {}).get("data")
    return {
        "task": record.get("task", "classify"),
        "metric": record.get("metric", "top-1"),
        "classes": data.get("classes", []),
        "wrapper": record.get("wrapper", {}),
        "data": {
            **_data(path, splits, data.get("bad")), "name": data.get("name", ""),
            **{k: data[k] for k in ("heldout", "resolution") if k in data},
        },
    }  # fmt: skip
