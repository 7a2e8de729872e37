"""Wrong and odd inputs to every command and task: each must end in one sentence, or in the right result.

    python benchmarks/odd_inputs.py [--work FOLDER] [--only WORD] [--list]

Makes a few pictures, three small trained runs (a minute) and about 770 inputs: files, options, checkpoints,
labels, outputs, data layouts. Runs each through the command line's app in this process and counts

    sentences   exit code 2 and one line that begins with "bneck: ", where the input is wrong
    right       exit code 0 and the result that is asked for, where it is odd but valid
    tracebacks  any other exception
    silent      exit code 0 for a wrong input, a wrong result, or a file of the user that changed

The last two are printed, and the exit code is 1 if there are any. Timing plays no part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import odd_data
from odd_cases import (
    CLASSES,
    SHORT,
    SLOW,
    TINY,
    Case,
    Check,
    Place,
    case,
    prepare,
    run,
    sentences,
    values,
)
from odd_checkpoints import bad_checkpoints, checkpoints
from PIL import Image

from bneck.specs.text import to_text
from bneck.specs.zoo import network
from bneck.tasks.options import TrainOptions, flag_of, of_command
from bneck.tasks.registry import tasks

# --- Options


def wrong_values(place: Place) -> Iterator[Case]:
    """Numbers and words that no option can be."""
    bad = {
        "--epochs": ("0", "-1", "nan", "inf", "two"), "--batch": ("0", "-4", "1", "x"),
        "--lr": ("0", "-1", "nan"), "--seed": ("-1", "99999999999"), "--bad-share": ("2", "-0.1", "nan"),
        "--resolution": ("0", "8", "-32", "big", "100000"), "--keep": ("l3",),
        "--set": ("nothing", "lr=x", "unknown=1", "precision=fp3"),
        "--recipe": ("best",), "--from": ("nowhere", "timm/../x"), "--teacher": ("nowhere", TINY),
        "--compute": ("gpu", "cuda:99", "tpu"), "--out": (place.user / "classify",),
    }  # fmt: skip
    data = place.user / "classify"
    for flag, words in bad.items():
        for word in words:
            yield case("value", "train", TINY, "--data", data, flag, word, *(
                () if flag == "--out" else ("--out", place.fresh())
            ))  # fmt: skip
    for command, flags in {
        "search": {"--target": ("0ms", "fast", "-5ms", "0%", "5", "5msec", "nanms"),
                   "--lose": ("-1", "nan", "200"),
                   "--also": ("nowhere",), "--steps": ("0", "-1"), "--delta": ("0", "2"),
                   "--repeats": ("0",), "--workers": ("0",), "--threads": ("0",), "--precision": ("fp7",),
                   "--runtime": ("tensorrt",), "--device": ("phone",), "--seed-network": ("v9",),
                   "--epochs": ("0", "nan")},
        "measure": {"--rounds": ("1", "0"), "--threads": ("0",), "--precision": ("fp7",),
                    "--runtime": ("tensorrt",), "--device": ("phone", "ssh:"), "--against": ("me",)},
        "export": {"--format": ("pb",), "--precision": ("int4",)},
        "ship": {"--lose": ("-1", "nan"), "--epochs": ("nan",), "--rounds": ("1",)},
        "quantize": {"--epochs": ("-1",), "--lr": ("0",), "--rounds": ("1",), "--runtime": ("torch", "x")},
        "evaluate": {"--split": ("nothing",), "--crop": ("ten",), "--resolution": ("0",),
                     "--labels": ("nowhere",)},
        "predict": {"--top": ("0", "-1"), "--score": ("2",), "--mask": ("x.png",)},
        "table": {"--precision": ("fp7",), "--threads": ("0",), "--runtime": ("torch",)},
    }.items():  # fmt: skip
        subject: tuple[object, ...] = {
            "search": ("--data", data), "measure": (TINY,), "export": (TINY,), "table": (TINY,),
            "predict": (place.user / "runs/classify", data / "ant/1.png"),
        }.get(command, (place.user / "runs/classify",))  # fmt: skip
        for flag, words in flags.items():
            for word in words:
                out = (
                    ("--out", place.fresh())
                    if command in ("search", "export", "quantize", "table", "ship")
                    else ()
                )
                yield case("value", command, *subject, flag, word, *out)


def foreign_options(place: Place) -> Iterator[Case]:
    """Options of another task, or of another command."""
    for task in tasks():
        for command, subject in {
            "train": (task.default_network, "--data", place.user / task.name, "--task", task.name),
            "search": ("--data", place.user / task.name, "--task", task.name),
            "count": (task.default_network, "--task", task.name),
            "measure": (task.default_network, "--task", task.name),
            "evaluate": (place.user / "runs" / task.name,),
            "predict": (place.user / "runs" / task.name, place.user / "classify/ant/1.png"),
            "export": (place.user / "runs" / task.name,),
        }.items():
            own = {one.name for one in of_command(task.Options, command)}
            seen = set(own)
            for other in tasks():
                for one in of_command(other.Options, command):
                    if one.name in seen:
                        continue
                    seen.add(one.name)
                    word = () if isinstance(one.default, bool) else ("1",)
                    out = (
                        ("--out", place.fresh()) if command in ("train", "search", "export") else ()
                    )
                    yield case("option", command, *subject, flag_of(one), *word, *out)


def lost_options(place: Place) -> Iterator[Case]:
    """Options next to --resume, and options without the one that they go with."""
    run_ = place.user / "runs/classify"
    for one in of_command(TrainOptions, "train"):
        word = () if isinstance(one.default, bool) else ("1",)
        yield case("lost", "train", "--resume", run_, flag_of(one), *word)
    yield case("lost", "train", TINY, "--resume", run_)
    yield case("lost", "train", "--resume", run_, "--out", place.fresh())
    yield case("lost", "train", "--resume", run_, "--seed", "0")
    data = place.user / "classify"
    for flag, word in {
        "--space": "v3-small", "--trials": "2", "--searcher": "tpe", "--objective": "reward",
        "--reward": "hard", "--exponent": "1", "--proxy-epochs": "1", "--batch": "1", "--top": "1",
        "--slack": "0", "--supernet": "1", "--ledger": "sqlite:///x.db", "--study": "s",
    }.items():  # fmt: skip
        yield case("lost", "search", "--data", data, flag, word, "--out", place.fresh())
        yield case("lost", "search", "--resume", run_, flag, word)
    yield case("lost", "search", "--resume", run_)
    for task in ("detect", "segment"):
        yield case("lost", "train", TINY, "--task", task, "--out", place.fresh())
        yield case("lost", "search", "--task", task, "--out", place.fresh())
        run_of = place.user / "runs" / task
        yield case("lost", "measure", run_of, "--task", "classify")
        yield case("lost", "export", run_of, "--task", "classify", "--out", place.fresh())
        yield case("lost", "evaluate", run_of / "model.onnx", "--compute", "cuda")
    yield case("lost", "measure", place.user / "runs/detect", "--task", "detect", "--classes", "5")
    for flag, word in {
        "--rounds": "10",
        "--threads": "1",
        "--runtime": "litert",
        "--device": "local",
    }.items():
        yield case("lost", "compare", TINY, flag, word, "--out", place.fresh())
    yield case(
        "lost", "reproduce", "table1", "--no-measure", "--threads", "2", "--out", place.fresh()
    )
    yield case("lost", "import", "--list", "--as", TINY)
    yield case("lost", "train", TINY, "--frozen", "--data", data, "--out", place.fresh())
    yield case("lost", "train", TINY, "--stream", "--out", place.fresh())
    yield case("lost", "quantize", run_, "--epochs", "0", "--lr", "0.1", "--out", place.fresh())
    yield case(
        "lost", "search", "--data", data, "--from", run_, "--from-scratch", "--out", place.fresh()
    )
    yield case("lost", "search", "--data", data, "--seed-network", run_, "--out", place.fresh())


# --- Files


def names(place: Place) -> Iterator[Case]:
    """Networks by names and spec files that are none."""
    for word in (
        "v3-smal",
        "v3-small-9",
        "v3-small+nothing",
        "v3-small@0",
        "",
        "v3-small-0",
        "-1",
        "nowhere.yaml",
    ):
        yield case("name", "show", "--", word)
        yield case("name", "count", "--", word)
    good = to_text(network(TINY))
    for number, text in enumerate((
        "", "{", "- 1", "rows: 3", good.replace("rows:", "lines:"), good.replace("hswish", "swosh"),
        good.replace("resolution: 224", "resolution: -3"), good.replace("resolution: 224", "resolution: x"),
        good[: len(good) // 2], "\x00\x01", good.replace("conv", "convolution", 1), good + "\nmore: 1\n",
    )):  # fmt: skip
        file = place.file(f"specs/{number}.yaml", text)
        yield case("name", "show", file)
        yield case("name", "export", file, "--out", place.fresh())
    yield case("name", "zoo", "resnet*")
    yield case("name", "zoo", "v3", "--task", "sing")
    yield case("name", "reproduce", "table99", "--out", place.fresh())


def runs(place: Place) -> Iterator[Case]:
    """Folders and files that are no runs, or damaged ones."""
    empty = place.user / "empty"
    empty.mkdir()
    whole = place.user / "runs/classify"
    damaged = {}
    for name, change in {
        "no-weights": lambda r: (r / "weights.safetensors").unlink(),
        "torn-weights": lambda r: (r / "weights.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}"),
        "torn-record": lambda r: (r / "run.json").write_text("{"),
        "list-record": lambda r: (r / "run.json").write_text("[]"),
        "other-format": lambda r: (r / "run.json").write_text('{"format": 99, "kind": "train"}'),
        "no-spec": lambda r: (r / "spec.yaml").unlink(),
        "other-spec": lambda r: (r / "spec.yaml").write_text(to_text(network("v2-0.35"))),
        "unknown-task": lambda r: (r / "run.json").write_text(
            (r / "run.json").read_text().replace('"task": "classify"', '"task": "sing"')
        ),
    }.items():
        damaged[name] = place.user / "damaged" / name
        shutil.copytree(whole, damaged[name], ignore=shutil.ignore_patterns("*.onnx"))
        change(damaged[name])
    files = {
        "text.onnx": b"hello", "empty.onnx": b"", "torn.onnx": (whole / "model.onnx").read_bytes()[:5000],
        "text.tflite": b"hello", "zero.tflite": bytes(100), "text.xml": b"<a/>", "x.pte": b"x",
        "weights.safetensors": b"x",
    }  # fmt: skip
    places = [empty, place.user / "nowhere", *damaged.values()]
    places += [place.file(f"models/{name}", data) for name, data in files.items()]
    picture = place.user / "classify/ant/1.png"
    for one in places:
        yield case("run", "predict", one, picture)
        yield case("run", "evaluate", one, "--data", place.user / "classify")
        if one.suffix != ".safetensors" and one.name not in (
            "no-weights",
            "torn-weights",
            "other-spec",
        ):  # latency needs none
            yield case("run", "measure", one, "--rounds", "3")
    for one in (empty, place.user / "nowhere", damaged["torn-record"], damaged["list-record"]):
        yield case("run", "report", one)
        yield case("run", "train", "--resume", one)
        yield case("run", "quantize", one, "--out", place.fresh())
    for task in ("detect", "segment"):
        yield case("run", "train", TINY, "--data", place.user / "classify", "--from",
                   place.user / "runs" / task, *SHORT, "--out", place.fresh())  # fmt: skip
        yield case("run", "search", "--data", place.user / "classify", "--from", whole, "--also",
                   place.user / "runs" / task, "--out", place.fresh())  # fmt: skip
        yield case("run", "train", TINY, "--data", place.user / "classify", "--teacher",
                   place.user / "runs" / task, "--out", place.fresh())  # fmt: skip


def pictures(place: Place) -> Iterator[Case]:
    """Pictures that are none, and odd ones, for predict."""
    whole = (place.user / "classify/ant/1.png").read_bytes()
    bad = [
        place.file("pictures/empty.png"), place.file("pictures/text.jpg", "hello"),
        place.file("pictures/torn.png", whole[:200]), place.user / "classify", place.user / "nowhere.png",
        place.user / "classify/*.png",
    ]  # fmt: skip
    odd = {
        "grey.png": Image.new("L", (33, 50), 9), "bits.png": Image.new("1", (33, 50), 1),
        "alpha.png": Image.new("RGBA", (33, 50), (9, 9, 9, 0)), "palette.gif": Image.new("P", (40, 40), 3),
        "one.png": Image.new("RGB", (1, 1), (1, 2, 3)), "thin.png": Image.new("RGB", (2, 500), (1, 2, 3)),
        "cmyk.jpg": Image.new("CMYK", (40, 40), (1, 2, 3, 4)), "sixteen.png": Image.new("I;16", (40, 40), 900),
        "wrong suffix.jpg": None, "Käse 犬.png": Image.new("RGB", (40, 40), (1, 2, 3)),
    }  # fmt: skip
    good = []
    for name, image in odd.items():
        path = place.file(f"pictures/{name}", whole)
        if image is not None:
            image.save(path)
        good.append(path)
    for task in ("classify", "detect", "segment"):
        run_ = place.user / "runs" / task
        for path in bad:
            yield case("picture", "predict", run_, path)
        for path in good:
            yield case("picture", "predict", run_, path, right=sentences(f"{path}: "))


def outputs(place: Place) -> Iterator[Case]:
    """Outputs over the user's files, and two inputs of one name."""
    mine = place.picture("mine/dog.png", side=64)
    other = place.picture("mine2/dog.png", (9, 200, 9), side=64)
    text = place.file("mine/notes.png.txt", "mine")
    for task in ("detect", "segment"):
        run_ = place.user / "runs" / task
        yield case("output", "predict", run_, mine, "--out", mine)
        yield case("output", "predict", run_, mine, "--out", mine.parent)
        yield case("output", "predict", run_, mine, other, "--out", other)
        yield case("output", "predict", run_, mine, "--out", other)
        yield case("output", "predict", run_, mine, "--out", other.parent)
        yield case("output", "predict", run_, mine, "--out", text)
        link = place.root / f"link-{task}"
        link.symlink_to(mine.parent)
        yield case("output", "predict", run_, mine, "--out", link)
        out = place.fresh()
        yield case("output", "predict", run_, mine, other, "--out", out,
                   right=lambda _, out=out: len(list(out.glob("*.png"))) == 2)  # fmt: skip
    seg = place.user / "runs/segment"
    yield case("output", "predict", seg, mine, "--mask", mine)
    yield case("output", "predict", seg, mine, "--mask", mine.parent)
    yield case("output", "predict", seg, mine, "--mask", place.user / "segment/masks/1.png")
    out = place.fresh()
    yield case("output", "predict", seg, mine, "--mask", out, "--out", out)
    yield case("output", "predict", place.user / "runs/classify", mine, "--out", place.fresh())
    for command in (
        ("export", TINY, "--out", mine), ("export", TINY, "--out", place.user / "classify"),
        ("export", place.user / "runs/classify", "--out", place.user / "runs/classify/weights.safetensors"),
        ("export", place.user / "runs/classify", "--out", place.user / "runs/classify/run.json"),
        ("compare", TINY, "--out", text), ("compare", TINY, "--out", place.user / "classify"),
        ("train", TINY, "--data", place.user / "classify", "--out", place.user / "classify"),
        ("train", TINY, "--data", place.user / "classify", "--out", mine),
        ("import", place.user / "runs/classify/weights.safetensors", "--as",
         place.user / "runs/classify/spec.yaml", "--out", place.user / "runs/classify"),
        ("reproduce", "table1", "--no-measure", "--out", text),
        ("quantize", place.user / "runs/classify", "--epochs", "0", "--rounds", "3", "--out", mine),
        ("search", "--data", place.user / "classify", "--out", place.user / "classify"),
        ("table", TINY, "--out", mine), ("table", TINY, "--out", place.user / "classify"),
    ):  # fmt: skip
        yield case("output", *command)


# --- Labels and layouts


def labels(place: Place) -> Iterator[Case]:
    """Images of other classes than a network knows."""
    run_ = place.user / "runs/classify"

    def folder(name: str, classes: dict[str, str]) -> Path:
        for mine, shown in classes.items():
            for i in range(3):
                place.picture(f"labels/{name}/{mine}/{i}.png", CLASSES.get(shown, (128, 128, 128)))
        return place.user / "labels" / name

    def scored(images: int) -> Check:
        return values(images=images)

    for name, classes, images in (
        ("less", {"bee": "bee", "cow": "cow"}, 6), ("dog", {"ant": "ant", "bee": "bee", "dog": ""}, 6),
        ("zebra", {"bee": "bee", "cow": "cow", "zebra": ""}, 6), ("case", {"Ant": "ant", "BEE": "bee"}, 6),
        ("more", {"ant": "ant", "bee": "bee", "cow": "cow", "elk": ""}, 9),
        ("other", {"x": "ant", "y": "bee", "z": "cow"}, None), ("numbers", {"0": "ant", "1": "bee"}, None),
    ):  # fmt: skip
        data = folder(name, classes)
        right = None if images is None else scored(images)
        for what in (run_, run_ / "model.onnx"):
            yield case("label", "evaluate", what, "--data", data, "--json", right=right)
    other = place.user / "labels/other"
    yield case("label", "quantize", run_, "--data", other, "--epochs", "0", "--out", place.fresh())
    yield case("label", "train", TINY, "--data", other, "--teacher", run_, "--out", place.fresh())
    yield case(
        "label",
        "evaluate",
        run_,
        "--labels",
        place.file("labels/two.txt", "x\ny\n"),
        "--data",
        other,
    )
    yield case("label", "evaluate", run_, "--json", "--data", other, "--labels",
               place.file("labels/three.txt", "x\ny\nz\n"), right=scored(9))  # fmt: skip
    for split in ("train", "val"):
        text = (place.user / f"detect/{split}/_annotations.coco.json").read_text()
        for name, changed in {"named": text.replace("cup", "mug"), "order": text.replace("cup", "zap").replace(
            "pen", "cup").replace("zap", "pen")}.items():  # fmt: skip
            shutil.copytree(
                place.user / "detect", place.user / "labels/detect" / name, dirs_exist_ok=True
            )
            place.file(f"labels/detect/{name}/{split}/_annotations.coco.json", changed)
    command = ("label", "evaluate", place.user / "runs/detect", "--json", "--data")
    yield case(*command, place.user / "labels/detect/named")
    yield case(*command, place.user / "labels/detect/order", right=scored(4))  # by name
    shutil.copytree(place.user / "segment", place.user / "labels/segment")
    place.file("labels/segment/classes.txt", "thing\nground\n")
    yield case(
        "label", "evaluate", place.user / "runs/segment", "--data", place.user / "labels/segment"
    )


def layouts(place: Place) -> Iterator[Case]:
    """Folders that hold nothing to learn from."""
    (place.user / "layouts/empty").mkdir(parents=True)
    text = place.file("layouts/file.txt", "hello")
    one = place.picture("layouts/one/ant/1.png").parents[1]
    for i in range(4):
        place.picture(f"layouts/hollow/ant/{i}.png")
    (place.user / "layouts/hollow/bee").mkdir()
    for name in ("ant", "bee"):
        for i in range(4):
            place.file(f"layouts/torn/{name}/{i}.png", b"x")
    folders = [place.user / "layouts" / name for name in ("empty", "hollow", "torn", "nowhere")] + [
        text,
        one,
    ]
    for task in tasks():
        for folder in folders:
            yield case("layout", "train", task.default_network, "--task", task.name, "--data", folder, *SHORT,
                       "--out", place.fresh())  # fmt: skip
            yield case(
                "layout", "search", "--task", task.name, "--data", folder, "--out", place.fresh()
            )
    for folder in folders:
        yield case("layout", "convert", folder)
        if folder != one:  # one class suffices to score
            yield case("layout", "evaluate", place.user / "runs/classify", "--data", folder)


def data(place: Place) -> Iterator[Case]:
    """Data sets as people have them, which are found, counted or refused."""

    def train(task: str, found: Path, right: Callable[[Any], bool] | None) -> Case:
        network_, options = {
            "classify": (TINY, ("--resolution", "32")), "detect": (f"{TINY}+dagger", ("--resolution", "64")),
            "segment": (f"{TINY}+rf2", ("--size", "64x64")),
        }[task]  # fmt: skip
        out = place.fresh()

        def check(_: str) -> bool:
            assert right is not None
            return right(json.loads((out / "run.json").read_text())["data"])

        return case("data", "train", network_, "--task", task, "--data", found, *options, "--epochs", "1",
                    "--batch", "2", "--out", out, right=None if right is None else check)  # fmt: skip

    for found, line in odd_data.layouts(place):
        said = None if line is None else lambda data, line=line: line in data["found"]
        yield train("classify", found, said)
    for found, boxes in odd_data.boxes(place):
        objects = None if boxes is None else lambda data, n=boxes: data["objects"]["train"] == n
        yield train("detect", found, objects)
    for found, pixels in odd_data.masks(place):
        learned = (
            None if pixels is None else lambda data, n=pixels: data["prepared"]["pixels"][1] == n
        )
        yield train("segment", found, learned)


PARTS = (
    wrong_values,
    foreign_options,
    lost_options,
    names,
    runs,
    pictures,
    outputs,
    checkpoints,
    bad_checkpoints,
    labels,
    layouts,
    data,
)


def outcome(one: Case, place: Place) -> tuple[str, str]:
    """sentence, right, traceback or silent, and what was said."""
    before = place.seal()
    code, out, err = run(one.command)
    said = err.strip().splitlines()[-1] if err.strip() else ""
    if isinstance(code, str):
        return "traceback", code
    if place.seal() != before:
        return "silent", f"files of the user changed; {said}"
    if code == 2 and one.right is None:
        known = said.startswith("bneck: ") and not said.endswith(".")
        return (
            ("sentence", said)
            if known
            else ("traceback", f"exit 2 without a sentence: {err[-300:]}")
        )
    if code == 0 and one.right is not None:
        return ("right", "") if one.right(out) else ("silent", f"another result: {out[-300:]}")
    return (
        "silent",
        f"exit {code}, expected {'a sentence' if one.right is None else 'a result'}: {said or out[-200:]}",
    )


def count(place: Place, only: str) -> Counter[str]:
    """Run all cases; print what is wrong, and a line per kind."""
    total: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    for part in PARTS:
        for one in list(part(place)):
            if only not in f"{one.kind} {' '.join(one.command)}":
                continue
            at = time.perf_counter()
            verdict, said = outcome(one, place)
            if (took := time.perf_counter() - at) > SLOW:
                print(f"{took:.0f} s: bneck {' '.join(one.command)}", flush=True)
            total[verdict] += 1
            kinds.setdefault(one.kind, Counter())[verdict] += 1
            if verdict in ("traceback", "silent"):
                print(f"{verdict}: bneck {' '.join(one.command)}\n    {said}", flush=True)
    columns = ("sentence", "right", "traceback", "silent")
    print(f"{'kind':12}" + "".join(f"{name:>11}" for name in columns))
    for kind, found in [*kinds.items(), ("all", total)]:
        print(f"{kind:12}" + "".join(f"{found[name]:11}" for name in columns))
    return total


def main_() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--only", default="", help="run the cases whose kind or command has this word"
    )
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        place = Place(Path(folder))
        prepare(place)
        if given.list:
            for part in PARTS:
                print(
                    "\n".join(f"{one.kind}: bneck {' '.join(one.command)}" for one in part(place))
                )
            return
        total = count(place, given.only)
    print(f"{sum(total.values())} inputs in {time.perf_counter() - began:.0f} s")
    sys.exit(1 if total["traceback"] or total["silent"] else 0)


if __name__ == "__main__":
    main_()
