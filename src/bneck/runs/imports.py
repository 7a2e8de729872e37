"""Source weights into a folder that is usable wherever a network is named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bneck.costs.count import count
from bneck.data.images import FILTERS
from bneck.data.labels import read_classes
from bneck.imports.checkpoint import BY_ORDER, FOREIGN, config_next_to
from bneck.imports.hub import Weights, fetch, hub_name, preprocessing
from bneck.imports.match import Matched, matched, which_network
from bneck.imports.published import network_of
from bneck.imports.read import read_source
from bneck.imports.source import Source
from bneck.imports.unwrap import KINDS
from bneck.nets.weights import save_weights
from bneck.records.files import write_json, write_text
from bneck.records.imported import ImportRecord, Preprocessing, SourceRecord
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.files import check_answers
from bneck.runs.folder import check_empty, fresh_folder, new_record, now
from bneck.specs.errors import InputError, few
from bneck.specs.network import PADDINGS, NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.text import resolve, to_text
from bneck.specs.transforms import with_resolution

SOURCES = ("auto", "timm", "timm-tf")
BACKGROUND = "background"


def import_weights(
    file: str | Path,
    network: str | Path | NetSpec | None = None,
    *,
    out: str | Path | None = None,
    source: str = "auto",
    padding: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bn_eps: float | None = None,
    classes: int | None = None,
    weights: str | None = None,
    labels: str | Path | None = None,
    allow_unmatched: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Import published weights as a trained network.

    Args:
        file: a state dict of torchvision (V3, V2) or timm (V3 and its tf_ ports, V2, MnasNet), as a
            torch or safetensors file, or a TFLite file, float or 8 bits, or bneck's own weights; or a
            repository of the Hugging Face hub, "timm/NAME.TAG[@REV]" or "hf:ORG/REPO[@REV]".
        network: which network it is: a zoo name with its width, or a spec file; None takes what the
            repository's config.json says, or the zoo's network with just these convolutions.
        out: the folder to write, new or empty; None makes one under runs/.
        source: "timm" or "timm-tf" where a timm file does not tell whether it is a port of
            TensorFlow weights; "auto" goes by the file's name and a config.json next to it.
        padding: "same" or "symmetric"; None takes the source's.
        bn_eps: batch norm's epsilon; None takes the source's.
        mean: of the input by channel, pixels from 0 to 1; None takes the source's.
        std: of the input, as `mean`.
        classes: the number of classes that the file must have; None allows 1000, 1001 and the
            network's own.
        weights: "raw" or "ema" (averaged) of a checkpoint that has both; None prefers "ema".
        labels: a list of class names (see `bneck.data.labels.read_classes`).
        allow_unmatched: patterns of names that may stay unmatched, as "classifier.*".
        progress: receives the steps of a download.

    Returns:
        The record (`bneck.records.imported.ImportRecord`), with its folder under "run".

    Raises:
        InputError: the file is damaged or holds code, another network, width or number of classes, names
            unmatched, or is a TFLite file whose outputs differ; the message is one sentence.
    """
    begun = new_record("import", "bneck.import_weights(...)")
    spec = None if network is None else resolve(network)
    _check_choices(source, padding, weights)
    folder = RunFolder(Path(out) if out is not None else fresh_folder("import"))
    check_empty(folder.path, ())
    found = _weights(file, known=network is None, progress=progress or Silent())
    port = None if source == "auto" else source == "timm-tf"
    held = read_source(found.file, port=port, weights=weights)
    spec = spec or resolve(_network(held, found.config, str(file)))
    spec = _as_published(spec, held, padding, bn_eps)
    made = matched(spec, held, path=found.file, excuses=allow_unmatched, classes=classes)
    held = replace(held, layout=FOREIGN) if BY_ORDER in made.notes else held
    spec, made.net.normalisation = made.net.spec, _normalisation(held, mean, std)
    overruled = (padding, bn_eps, mean, std) != (None,) * 4 or made.excused
    alike = [] if overruled else check_answers(found.file, held, made.net)
    names, ids = _class_names(None if labels is None else Path(labels), spec.classes)
    record: Any = ImportRecord(
        **{**begun, **_facts(spec), "state": "finished"},  # type: ignore[typeddict-item]
        finished=now(), source=_source_record(found, held),
        preprocessing=_preprocessing(found.config),
        normalisation=made.net.normalisation.as_json(), classes=names, class_ids=ids,
        excused=list(made.excused), notes=[*_notes(held, made), *alike],
    )  # fmt: skip
    write_text(folder.spec, to_text(spec))
    save_weights(made.net.state_dict(), folder.weights)
    write_json(folder.run_json, record)  # last: a folder without it is no run
    return {"run": str(folder.path), **record}


def _check_choices(source: str, padding: str | None, weights: str | None) -> None:
    if source not in SOURCES:
        raise InputError(f"there is no source {source!r}; known are {', '.join(SOURCES)}")
    if padding is not None and padding not in PADDINGS:
        raise InputError(f"padding is {padding!r}; allowed are {', '.join(PADDINGS)}")
    if weights is not None and weights not in KINDS:
        raise InputError(f"weights is {weights!r}; allowed are {', '.join(KINDS)}")


def _facts(spec: NetSpec) -> dict[str, Any]:
    """What a record says of the network itself."""
    costs = count(spec)
    return {
        "name": spec.name, "digest": spec.digest(), "params": costs.params, "madds": costs.madds,
        "padding": spec.padding, "bn_eps": spec.bn_eps, "resolution": spec.resolution,
        "class_count": spec.classes,
    }  # fmt: skip


def _weights(file: str | Path, *, known: bool, progress: Progress) -> Weights:
    """The file that a path or a name on the hub means."""
    if (name := hub_name(str(file))) is not None:
        return fetch(name, progress, known=known)
    return Weights(file=Path(file), config=config_next_to(Path(file)))


def _network(held: Source, config: Mapping[str, Any], whose: str) -> str:
    """The zoo's name of the network that weights belong to."""
    if isinstance(config.get("architecture"), str):
        return network_of(config["architecture"], whose)
    found = which_network(held.filters)
    if found is None:
        raise InputError(
            f"{whose} has the convolutions of no network known here at any width; name its network or write "
            "its table as a spec file, and pass that to bneck import with --as"
        )
    return found


def _as_published(
    spec: NetSpec, held: Source, padding: str | None, bn_eps: float | None
) -> NetSpec:
    spec = replace(
        spec,
        padding=padding or held.padding or spec.padding,  # type: ignore[arg-type]
        bn_eps=bn_eps if bn_eps is not None else held.bn_eps or spec.bn_eps,
    )
    return with_resolution(spec, held.resolution or spec.resolution)


def _normalisation(
    held: Source, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalisation:
    default = held.normalisation or IMAGENET
    return Normalisation(
        default.mean if mean is None else tuple(mean),  # type: ignore[arg-type]
        default.std if std is None else tuple(std),  # type: ignore[arg-type]
    )


def _source_record(weights: Weights, held: Source) -> SourceRecord:
    data, origin = weights.file.read_bytes(), weights.origin()
    return SourceRecord(
        file=weights.file.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data),
        layout=held.layout, repository=origin["repository"], commit=origin["commit"],
        license=origin["license"],
    )  # fmt: skip


def _preprocessing(config: Mapping[str, Any]) -> Preprocessing | None:
    """How the publisher evaluates; None where it says nothing or nothing that can be."""
    said = preprocessing(config)
    share, filter = said.get("crop_pct"), str(said.get("interpolation", "bilinear"))
    if not isinstance(share, int | float) or not 0 < share <= 1 or filter not in FILTERS:
        return None
    return Preprocessing(crop=float(share), interpolation=filter)


def _class_names(path: Path | None, count: int) -> tuple[list[str] | None, dict[str, int] | None]:
    """Names by index, and other names of classes; a list of 1000 serves 1001 classes too."""
    if path is None:
        return None, None
    listed = read_classes(path)
    shift = 1 if count == 1001 and len(listed.names) == 1000 else 0
    if len(listed.names) + shift != count:
        has = f"{len(listed.names)} classes" if listed.names else "gaps"
        raise InputError(
            f"{path} has {has}, and the network {count} classes; give a list of all of them"
        )
    names = [BACKGROUND] * shift + list(listed.names)
    ids = {name: index + shift for name, index in listed.places.items()}
    return names, {name: index for name, index in ids.items() if names[index] != name} or None


def _notes(held: Source, made: Matched) -> list[str]:
    notes = [*held.notes, *made.notes]
    if made.net.spec.classes == 1001:
        notes.append("1001 classes: the first is the background")
    if held.layout == "timm":
        notes.append(
            "taken as trained in timm; a port of TensorFlow weights needs --source timm-tf"
        )
    if made.excused:
        notes.append(f"unmatched and excused: {few(made.excused)}")
    return notes
