"""What a network says of pictures, for every task: printed, and drawn next to the user's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from bneck.records.files import write_whole
from bneck.records.run import RunFolder, task_run
from bneck.runs.answers import answering
from bneck.runs.drawn import DRAWN, drawn_files, refuse_shared
from bneck.specs.errors import InputError
from bneck.tasks.contract import Prediction
from bneck.tasks.options import parted
from bneck.tasks.registry import tasks


def predict(
    run: str | Path, images: Sequence[str | Path], *, out: str | Path | None = None, **options: Any
) -> list[dict[str, Any]]:
    """What a trained network says of pictures of any size.

    Args:
        run: a finished run's folder, or a file that export has written, which answers in its own
            runtime. A run answers by its model.onnx where the task's files take any picture.
        images: picture files.
        out: where to draw what was found: a .png file for one picture, a folder for several.
        **options: options of the task that predict takes (docs/commands.md).

    Returns:
        For each picture: image, what was found, line (for people) and the picture written or None.

    Raises:
        InputError: no trained network, a picture that cannot be read, or an output that is an input.
    """
    if not images:
        raise InputError("there is no picture; name one, as in: bneck predict RUN street.jpg")
    source = task_run(run)
    model = RunFolder(source).model
    answers, record, _ = answering(model if model.is_file() else source, "cpu")
    if model.is_file() and answers.task.any_size:  # the file takes one size alone
        answers, record, _ = answering(source, "cpu")
    _, own = parted(answers.task, "predict", options, tasks())
    pictures = [Path(image) for image in images]
    places = drawn_files(out, pictures, "--out")
    others = {
        name: drawn_files(getattr(own, name), pictures, f"--{name}") for name in answers.task.paints
    }
    refuse_shared(places, *others.values())
    found = []
    for number, (image, place) in enumerate(zip(pictures, places, strict=True)):
        said: Prediction = answers.task.predict(answers, image, own, record)
        written = {"picture": None if place is None else str(place)}
        if place is not None:
            page = answers.task.draw(image, said, answers)
            if page is None:
                raise InputError(
                    f"--out draws what was found, and {run} is a network of the task {answers.task.name}, "
                    "which has nothing to draw; leave it out"
                )
            _save(page, place)
        for name, kept in others.items():
            if (other := kept[number]) is not None:
                _save(answers.task.paint(name, said), other)
                written[name] = str(other)
        found.append({"image": str(image), **said.found, "line": said.line, **written})
    return found


def _save(page: Any, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    mark = PngInfo()
    mark.add_text(*DRAWN)
    write_whole(place, lambda partial: page.save(partial, format="png", pnginfo=mark))
