"""Detection as a task: SSDLite (section 6.3) around any backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bneck.data.depth import deep
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import with_resolution
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Answers, Dataset, Left, Metric, Prediction, Size, Task, later
from bneck.tasks.data import as_input, known_bits, told_bits
from bneck.tasks.detect.head import COCO_IDS, Ssdlite, anchors, ssdlite
from bneck.tasks.options import option

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from bneck.devices.runtimes import Runtime, Session
    from bneck.graphs.forms import Precision
    from bneck.nets.quantize import Quantized
    from bneck.training.settings import Settings

EPOCHS, BATCH, LR = 60.0, 16, 0.002
SHOWN_SCORE = 0.3  # least score that is shown where no threshold was chosen on val


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectOptions:
    """What can be told to detection."""

    resolution: int | None = option(
        None,
        "Input side in pixels; default the network's, 320 for a detector.",
        "train", "search", "count", "measure",
    )  # fmt: skip
    images: str | None = option(
        None,
        "Folder of the images, if they are not next to the json (detection).",
        "train", "search", "evaluate",
    )  # fmt: skip
    loss: str = option(
        "focal", "Detection loss: focal, or mining (hard negatives).", "train", "search"
    )
    classes: int | None = option(
        None, "Number of classes; default COCO's 90 ids.", "count", "measure"
    )
    decode: bool = option(
        False, "ONNX file outputs boxes after NMS (detection).", "export", "measure"
    )
    score: float | None = option(
        None, "Least score shown; default the best threshold on val (detection).", "predict"
    )


class Detect(Task):
    """Boxes with classes."""

    name = "detect"
    summary = "boxes with classes (SSDLite)"
    metric = Metric("mAP", "AP")
    default_network = "v3-small+dagger"
    converts = True
    statistics = (128, 16)
    answer = "box offsets and class logits per anchor (anchors are in the metadata); no NMS"
    agrees = "alike"
    Options = DetectOptions
    cannot: ClassVar[Mapping[str, str]] = {
        "supernet": "a supernet scores classifiers only; leave it out, then every trial is trained",
        "stream": "a detector crops from stored images, which are decoded once; leave it out",
        "lose": "a bound on the loss is known for classification alone; give a --target",
        "recipe": "recipes by name are for classification; leave it out",
        "choose": "one epoch behind a frozen backbone says too little of a detector, whose head has no "
        "weights yet; search from one network with --from",
    }
    data_type = later("bneck.tasks.detect.dataset:DetectionData")
    find = later("bneck.tasks.detect.dataset:find")
    prepare = later("bneck.tasks.detect.dataset:prepare")
    evaluate = later("bneck.tasks.detect.dataset:evaluate")
    renumbered = later("bneck.tasks.detect.dataset:renumbered")
    net = later("bneck.tasks.detect.module:DetectorNet")
    build = later("bneck.tasks.detect.module:build_detector")
    count = later("bneck.tasks.detect.tables:count_table")
    zoo = later("bneck.tasks.detect.tables:zoo_table")
    score_table = later("bneck.tasks.detect.tables:score_table")
    report = later("bneck.tasks.detect.report:report_lines")

    def arrange(
        self, network: str | Path | NetSpec, options: DetectOptions, dataset: Dataset | None
    ) -> tuple[NetSpec, Wrapper]:
        """SSDLite around a network; a width in a zoo name also scales the extra feature maps."""
        classes = (options.classes or COCO_IDS) if dataset is None else len(dataset.classes)
        made = ssdlite(network, classes=classes, resolution=options.resolution)
        spec = with_resolution(made.network, made.resolution)
        return spec, Ssdlite(classes=classes, extras=made.extras)

    def elsewhere(self, options: DetectOptions) -> DetectOptions:
        """Without the folder of the run's own images."""
        return replace(options, images=None)

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> Wrapper:
        """SSDLite as a record has it."""
        return Ssdlite(classes=classes, extras=tuple(stored["extras"]))

    def stored(self, spec: NetSpec, wrapper: Any) -> dict[str, Any]:
        """Classes and the channels of the extra feature maps."""
        return {"head": "ssdlite", "classes": wrapper.classes, "extras": list(wrapper.extras)}

    def told(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """The same from a file."""
        return {"head": "ssdlite", "extras": json.loads(metadata["extras"])}

    def convert(self, data: Path, out: Path | None) -> tuple[dict[str, Path], tuple[Left, ...]]:
        """VOC xml as COCO json, in `data`/annotations unless `out` says otherwise."""
        from bneck.tasks.detect.intake.voc import convert_voc

        files, dropped = convert_voc(data, data / "annotations" if out is None else out)
        return files, tuple(Left(what=one.what, why=one.reason) for one in dropped)

    def recipe(
        self, name: str | None, *, images: int, epochs: float | None, started: bool, seed: int
    ) -> Settings:
        """The authors' recipe scaled to some thousand images.

        RMSProp with batches of 16 (fewer where an epoch would have fewer than four steps) at a peak
        learning rate of 0.002 and a cosine, batch norm's momentum 0.1, EMA of weights over about 100
        steps. `bneck train v3-small+dagger --task detect --data bccd --resolution 160`: docs/results.md.
        """
        from bneck.training.settings import Settings

        epochs = EPOCHS if epochs is None else epochs
        batch = min(BATCH, max(2, images // 4))
        return Settings(
            epochs=epochs, batch=batch, lr=LR * batch / BATCH, warmup=min(1.0, epochs / 10),
            weight_decay=4e-5, average=0.99, bn_momentum=0.1, seed=seed,
        )  # fmt: skip

    def predict(
        self, answers: Answers, path: Path, options: DetectOptions, record: Mapping[str, Any]
    ) -> Prediction:
        """Boxes of at least `score`, by default the best threshold on the run's val images."""
        from bneck.data.images import read_stretched, read_whole
        from bneck.tasks.detect.scoring import check_raw, found_in

        check_raw(answers)
        if options.score is not None and not 0 <= options.score <= 1:
            raise InputError(f"score is {options.score}; it must be from 0 to 1")
        best = (record.get("scores", {}).get("val") or {}).get("threshold") or {}
        least = options.score if options.score is not None else best.get("score", SHOWN_SCORE)
        file = deep(path, known_bits(answers, record))
        stretched, whole = read_stretched(file, answers.spec.resolution), read_whole(file)
        if isinstance(stretched, str) or isinstance(whole, str):
            raise InputError(
                f"{path} cannot be used: {stretched}; replace it with an image file that is whole"
            )
        image = as_input(stretched, answers.normalisation)
        seen = found_in(answers, image[None])[0].above(least)
        height, width = whole.shape[:2]
        names = [answers.labels[int(label) - 1] for label in seen.labels]
        objects = [
            {
                "label": name,
                "score": float(value),
                "box": [float(v * side) for v, side in zip(box, (width, height) * 2, strict=True)],
            }
            for box, value, name in zip(seen.boxes, seen.scores, names, strict=True)
        ]
        counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        return Prediction(
            found={"width": width, "height": height, "objects": objects},
            line=counts or "nothing",
            raw=(whole, seen),
        )

    def draw(self, path: Path, prediction: Prediction, answers: Answers) -> Image | None:
        """The boxes with names and scores."""
        from PIL import Image as Pictures

        from bneck.tasks.detect.drawing import PALETTE, Mark, with_boxes

        whole, seen = prediction.raw
        marks = [
            Mark(
                (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                f"{answers.labels[int(label) - 1]} {value:.0%}",
                PALETTE[(int(label) - 1) % len(PALETTE)],
            )
            for box, value, label in zip(seen.boxes, seen.scores, seen.labels, strict=True)
        ]
        return with_boxes(Pictures.fromarray(whole), marks)

    def title(self, spec: NetSpec, wrapper: Wrapper) -> str:
        """`ssdlite v3-small+dagger@320`."""
        return f"ssdlite {spec.name}"

    def variants(self) -> Sequence[tuple[str, Any]]:
        """`model.onnx`, and `model-boxes.onnx` with decoding and NMS inside."""
        return [("model.onnx", DetectOptions()), ("model-boxes.onnx", DetectOptions(decode=True))]

    def metadata(
        self, net: Any, record: Mapping[str, Any], engine: Runtime, precision: Precision,
        size: Size, options: DetectOptions,
    ) -> dict[str, str]:  # fmt: skip
        """Class names, normalisation, resolution, the extra feature maps and the anchors."""
        detector = net.wrapped
        names = record.get("classes") or [str(i + 1) for i in range(detector.classes)]
        return {
            "task": "detect",
            "decoded": json.dumps(options.decode),
            "precision": precision,
            "classes": json.dumps(list(names)),
            "mean": json.dumps(net.normalisation.mean),
            "std": json.dumps(net.normalisation.std),
            "resolution": str(detector.resolution),
            "spec": to_text(detector.network),
            "extras": json.dumps(detector.extras),
            "anchors": json.dumps(anchors(detector)),
            **told_bits(record),
        }

    def finished(self, options: DetectOptions) -> bool:
        """Decoding and NMS."""
        return options.decode

    def compare(
        self, net: Any, session: Session, images: Tensor, quantized: Quantized | None,
        precision: Precision, options: DetectOptions,
    ) -> dict[str, Any]:  # fmt: skip
        """Boxes and scores of both, see `detect.file.compare`."""
        from bneck.tasks.detect.file import compare

        return compare(net, session, images, quantized, precision, decode=options.decode)

    def check_line(self, check: Mapping[str, Any]) -> str:
        if "alike" in check and not check["boxes"]:
            return "the network finds no box with a score above 0.05, so none is compared"
        how = (
            f"{check['alike']:.1%} of the boxes alike"
            if "alike" in check
            else f"boxes and scores differ by {check['largest_difference']:.1e}"
        )
        return f"{check['boxes']} boxes, {how}"
