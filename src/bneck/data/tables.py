"""Hugging Face datasets: parquet files, or folders that `save_to_disk` wrote. Read with pyarrow alone."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bneck.data.intake.splits import Split, split_of
from bneck.data.intake.walk import DataError, is_hidden
from bneck.data.sources import Source, Sources, state_of, with_splits

LABELS = ("label", "labels", "fine_label", "cls", "class", "target")
KEPT_GROUPS = 4  # row groups of parquet that are kept decoded


def is_table(path: Path) -> bool:
    """Whether a path is a parquet file or a folder of parquet or Arrow files."""
    if path.suffix == ".parquet":
        return True
    return path.is_dir() and bool(_files(path))


def read_tables(path: Path, *, val_share: float, seed: int) -> Sources:
    """List the images of a dataset with a column of encoded images and one of labels.

    Splits are told by the words in the names of files or of their folders. Arrow files are mapped and read at
    random; of parquet files whole row groups are read, so they suit packing, not streaming.

    Raises:
        DataError: no such columns, damaged files, or labels that make no dataset.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise DataError(
            f"{path} is read with pyarrow, which is not installed; run: pip install 'bneck[train]'"
        ) from None
    files = _files(path) if path.is_dir() else [path]
    by_split: dict[str, list[Path]] = {"train": []}
    for file in files:
        by_split.setdefault(_split(file, path), []).append(file)
    try:
        tables = {split: [_open(file) for file in found] for split, found in by_split.items()}
        if not tables["train"]:
            raise DataError(f"{path} has no files of train; their names must say so")
        classes = _classes(tables["train"][0], path)
        if classes is None:
            classes = _written(tables["train"])
        sources = {split: _source(found, classes, path) for split, found in tables.items()}
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"a file of {path} is damaged or unreadable: {reason}") from None
    kind = "parquet" if files[0].suffix == ".parquet" else "arrow"
    return with_splits(
        classes,
        sources,
        str(path),
        kind=kind,
        fingerprint=state_of(files),
        val_share=val_share,
        seed=seed,
    )


class _Arrow:
    """One Arrow file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        source = pa.memory_map(str(path))
        try:
            self.table = pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            self.table = pa.ipc.open_file(source).read_all()
        self.schema = self.table.schema

    def column(self, name: str) -> list[Any]:
        found: list[Any] = self.table.column(name).to_pylist()
        return found

    def value(self, name: str, row: int) -> Any:
        return self.table.column(name)[row].as_py()


class _Parquet:
    """One parquet file; the row groups that were read last are kept."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.file = pq.ParquetFile(path)
        self.schema = self.file.schema_arrow
        sizes = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])
        self.kept: OrderedDict[int, Any] = OrderedDict()
        self.lock = threading.Lock()

    def column(self, name: str) -> list[Any]:
        found: list[Any] = self.file.read(columns=[name]).column(name).to_pylist()
        return found

    def value(self, name: str, row: int) -> Any:
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self.lock:
            if group not in self.kept:
                self.kept[group] = self.file.read_row_group(group, columns=[name]).column(name)
                if len(self.kept) > KEPT_GROUPS:
                    self.kept.popitem(last=False)
            column = self.kept[group]
        return column[row - int(self.starts[group])].as_py()


_Table = _Arrow | _Parquet


def _open(path: Path) -> _Table:
    return _Parquet(path) if path.suffix == ".parquet" else _Arrow(path)


def _files(folder: Path) -> list[Path]:
    """Arrow files of a saved dataset, or parquet files, here or in folders of splits or `data`."""
    for pattern in ("data-*.arrow", "*/data-*.arrow", "*.parquet", "*/*.parquet"):
        found = sorted(path for path in folder.glob(pattern) if not is_hidden(path.name))
        if found:
            return found
    return []


def _split(file: Path, root: Path) -> Split:
    names = [file.stem] if file.parent == root else [file.stem, file.parent.name]
    return next((split for name in names if (split := split_of(name))), "train")


def _columns(table: _Table, path: Path) -> tuple[str, str]:
    """The names of the columns of images and of labels."""
    import pyarrow.types as kinds

    images = [
        field.name
        for field in table.schema
        if (kinds.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        or (kinds.is_binary(field.type) or kinds.is_large_binary(field.type))
    ]
    labels = [name for name in LABELS if name in table.schema.names]
    if not images or not labels:
        has = ", ".join(table.schema.names)
        raise DataError(
            f"{path} has the columns {has}; one of encoded images and one of labels (called "
            f"{', '.join(LABELS)}) are needed"
        )
    return images[0], labels[0]


def _classes(table: _Table, path: Path) -> tuple[str, ...] | None:
    """Class names as the dataset's features have them, if it does."""
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    beside = table.path.parent / "dataset_info.json"
    try:
        if metadata is not None:
            features = json.loads(metadata)["info"]["features"]
        elif beside.is_file():
            features = json.loads(beside.read_text("utf-8"))["features"]
        else:
            return None
        names = features[_columns(table, path)[1]].get("names")
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
    return tuple(map(str, names)) if names else None


def _written(tables: Sequence[_Table]) -> tuple[str, ...]:
    """Classes as the labels themselves tell: names, or numbers from 0."""
    found = {value for table in tables for value in table.column(_columns(table, table.path)[1])}
    if all(isinstance(value, int) for value in found):
        return tuple(str(number) for number in range(max(found, default=-1) + 1))
    return tuple(sorted(map(str, found)))


def _source(tables: Sequence[_Table], classes: tuple[str, ...], path: Path) -> Source:
    numbers = {name: number for number, name in enumerate(classes)}
    labels: list[int] = []
    places: list[tuple[int, int]] = []
    columns = []
    for number, table in enumerate(tables):
        image, label = _columns(table, path)
        columns.append(image)
        for row, value in enumerate(table.column(label)):
            # A label that is no class stays out of range, and check_labels refuses it.
            labels.append(value if isinstance(value, int) else numbers.get(str(value), -1))
            places.append((number, row))

    def read(index: int) -> bytes:
        number, row = places[index]
        value = tables[number].value(columns[number], row)
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise FileNotFoundError(2, "it has no bytes")
        return bytes(data)

    names = [f"{tables[number].path.name}/{row}" for number, row in places]
    return Source(names, np.array(labels, np.int64), read)
