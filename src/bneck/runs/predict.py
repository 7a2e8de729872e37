"""What a network says of pictures, for every task: printed, and drawn next to the user's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bneck.records.files import write_whole
from bneck.records.run import RunFolder, task_run
from bneck.runs.answers import FileAnswers, ModuleAnswers
from bneck.runs.evaluate import record_next_to
from bneck.specs.errors import InputError
from bneck.tasks.contract import Prediction
from bneck.tasks.options import parted
from bneck.tasks.registry import tasks


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """What a trained network says of pictures of any size.

    Args:
        run: a finished run's folder, or a file that export has written, which answers in its own
            runtime. A run answers by its model.onnx where the task's files take any picture.
        images: picture files.
        out: where to draw what was found: a .png file for one picture, a folder for several.
        options: the fields of the task's `Options` that predict takes.

    Returns:
        For each picture: image, what was found, line (for people) and the picture written or None.

    Raises:
        InputError: no trained network, a picture that cannot be read, or an output that is an input.
    """
    if not images:
        raise InputError("there is no picture; name one, as in: bneck predict RUN street.jpg")
    answers, record = _answering(Path(task_run(run)))
    _, own = parted(answers.task, "predict", options, tasks())
    pictures = [Path(image) for image in images]
    places = outputs(pictures, out, "--out")
    others = {
        name: outputs(pictures, getattr(own, name), f"--{name}") for name in answers.task.paints
    }
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


def _answering(path: Path) -> tuple[FileAnswers | ModuleAnswers, dict[str, Any]]:
    if path.is_file():
        return FileAnswers(path), record_next_to(path)
    folder = RunFolder(path)
    if folder.model.is_file():
        file = FileAnswers(folder.model)
        if not file.task.any_size:
            return file, folder.read()
    from bneck.runs.load import trained

    run = trained(path)
    return ModuleAnswers(run.task, run.net, run.labels), run.record


def outputs(images: Sequence[Path], out: str | Path | None, option: str) -> list[Path | None]:
    """A place for what is drawn of each picture; two pictures of one name get two places.

    Raises:
        InputError: one file for several pictures, or a place where an input lies.
    """
    if out is None:
        return [None] * len(images)
    path = Path(out)
    if path.suffix.lower() == ".png":
        if len(images) > 1:
            raise InputError(
                f"{option} is the file {path} and there are {len(images)} pictures; name a folder"
            )
        places = [path]
    elif path.suffix and not path.is_dir():
        raise InputError(f"{option} is {path}; name a .png file, or a folder")
    else:
        places = [path / f"{name}.png" for name in _names(images)]
    inputs = {image.resolve() for image in images}
    for place in places:
        if place.resolve() in inputs:
            raise InputError(
                f"{option} would write over the picture {place}; name another file or folder"
            )
    return list(places)


def _names(images: Sequence[Path]) -> list[str]:
    """File names without ending; where several pictures share one, with their folders' names."""
    stems = [image.stem for image in images]
    names: list[str] = []
    for image, stem in zip(images, stems, strict=True):
        name, parents = stem, [*reversed(image.absolute().parent.parts[1:])]
        if stems.count(stem) > 1:
            name = "-".join([*reversed(parents[:1]), image.name.replace(".", "-")])
        number, unique = 2, name
        while unique in names:
            number, unique = number + 1, f"{name}-{number}"
        names.append(unique)
    return names


def _save(page: Any, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, lambda partial: page.save(partial, format="png"))
