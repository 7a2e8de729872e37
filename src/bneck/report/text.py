"""What the report says in words, each sentence a function of the record alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from bneck.records.run import NetworkRecord, SearchRecord
from bneck.report.numbers import (
    NONE,
    duration,
    listed,
    ms,
    percent,
    several,
    signed_percent,
    spread_text,
)

Verdict = Literal["above", "tie", "below"]
EQUAL_LATENCY = 0.02  # measured latencies closer than this share are not remarked upon


def compare(found: Sequence[float], uniform: Sequence[float]) -> Verdict:
    """Compare repeated trainings of two networks; overlapping ranges are a tie."""
    if min(found) > max(uniform):
        return "above"
    return "below" if max(found) < min(uniform) else "tie"


def metric(record: SearchRecord, *, first: bool = False) -> str:
    """What the run's scores are; as the first word of a sentence."""
    name = record.get("metric", "top-1")
    return "Top-1" if first and name == "top-1" else name


def named(record: SearchRecord) -> Iterator[tuple[str, str, NetworkRecord]]:
    """(role, title, network) of seed, found and uniform as far as they are there, and of the others."""
    networks = (record.get("seed_network"), record.get("found"), record.get("uniform"))
    for role, network in zip(("seed", "found", "uniform"), networks, strict=True):
        if network:
            name = network.get("name", "")
            if role == "uniform" and network.get("width") is not None:
                name = _width(network)
            yield role, f"{role}: {name}" if name else role, network
    for role, network in record.get("others", {}).items():
        yield role, network.get("title", role), network


def _width(uniform: NetworkRecord) -> str:
    """The mean ratio of its widths, by which form it has."""
    kind = "multiplier" if uniform.get("title") == "width multiplier" else "width"
    return f"{kind} {uniform['width']:.3g}"


def best_baseline(record: SearchRecord) -> tuple[str, NetworkRecord] | None:
    """(title, network) of the most accurate one that is not shipped; None before any is trained."""
    shipped = record.get("allocation", {}).get("shipped", "found")
    trained = [
        (title, network)
        for role, title, network in named(record)
        if role not in ("seed", "found", shipped) and network.get("scores")
    ]
    return max(trained, key=lambda one: fmean(one[1]["scores"]), default=None)


def shipped_sentence(record: SearchRecord) -> str:
    """Which network of a search by importance ships, and why; "" for another search."""
    allocation = record.get("allocation")
    if not allocation:
        return ""
    shipped = allocation.get("shipped")
    if shipped is None:
        return "None is trained yet."
    if shipped == "found":
        return "The network by importance scores at least as high as every other, and ships."
    found, narrowed = record["found"], record.get("others", {}).get("narrowed", {})
    title, ours, theirs = found.get("title", "another"), found["scores"], narrowed.get("scores")
    tie = "; the difference is within the range of the training runs"
    return (
        f"{title[0].upper()}{title[1:]} scores higher than the network by importance, and ships"
        f"{tie if theirs and compare(ours, theirs) == 'tie' else ''}."
    )


def lose_sentence(record: SearchRecord) -> str:
    """What a search with --lose tried, and what it came to; "" for another."""
    known = record.get("lose")
    if not known:
        return ""
    tried = [
        f"{one['share']:.0%} of the latency loses {one['lost']:.1f} points (at most {one['at_most']:.1f})"
        for one in known["probes"]
    ]
    end = "" if known["met"] else " None was within it."
    return (
        f"The loss was to be at most {known['points']:g} points with {known['confidence']:.0%} confidence, of "
        f"one training run each: {listed(tried)}. The target became {known['target']} of the seed's "
        f"latency.{end}"
    )


def seed_sentence(record: SearchRecord) -> str:
    """When the seed network was narrowed, where its score is that of training it further; "" elsewhere."""
    narrowed_from = record.get("seed_network", {}).get("narrowed_from")
    if narrowed_from is None:
        return ""
    return (
        f"The seed network was narrowed at {metric(record)} {percent(narrowed_from)} %; its score in this "
        "report is what it reaches when it is trained as long as the others."
    )


def others_sentence(record: SearchRecord) -> str:
    """What the other networks of equal latency reach; "" where there are none."""
    parts = [
        f"{network.get('title', role)} {spread_text(network['scores'])}"
        + (f" at {ms(network['measured_ms'])} ms" if "measured_ms" in network else "")
        for role, network in record.get("others", {}).items()
        if network.get("scores")
    ]
    return f"Other ways to that latency, trained as long in all: {listed(parts)}." if parts else ""


def measured(network: NetworkRecord) -> tuple[float | None, float | None, float | None]:
    """Median, 10th and 90th percentile of the latency, as far as they are known."""
    spread = (network.get("measurement") or {}).get("latency_ms") or {}
    return network.get("measured_ms"), spread.get("p10"), spread.get("p90")


def measured_ms(record: SearchRecord) -> float | None:
    """The found network's measured latency."""
    return record.get("found", {}).get("measured_ms", record.get("measured_latency_ms"))


def meets_target(record: SearchRecord) -> bool | None:
    """Whether the measured latency is within the target; None as long as that is unknown."""
    measured, target = measured_ms(record), record.get("target_ms")
    if measured is None or target is None:
        return record.get("meets_target")
    return measured <= target


def target_text(record: SearchRecord) -> str:
    """The target in milliseconds, and as the user wrote it where that differs."""
    target, written = record.get("target_ms"), record.get("target")
    if target is None:
        return written or NONE
    text = f"{ms(target)} ms"
    in_ms = written is None or written.replace(" ", "").endswith("ms")
    return text if in_ms else f"{text} ({written} of the seed network)"


def task_sentence(record: SearchRecord) -> str:
    """Where the found network lies as a run of its own; "" before it was written."""
    if "export" not in record:
        return ""
    return (
        "The folder found holds the network as a finished run, with the details of its scores: "
        "found/report.md. Every command accepts this run's folder instead."
    )


def headline(record: SearchRecord) -> str:
    """The report's first sentence: what was found, how fast it is, and whether that suffices."""
    found, target = record.get("found"), record.get("target_ms")
    if not found:
        return _searching(record)
    text, measured = f"Found {found.get('name', 'a network')}", measured_ms(record)
    if measured is None:
        text += ", not yet measured"
        estimated = found.get("estimated_ms", record.get("estimated_latency_ms"))
        if estimated is not None:
            text += f": estimated at {ms(estimated)} ms"
        if target is not None:
            text += f"; whether it meets the target of {target_text(record)} is open"
        return text + "."
    text += f": {ms(measured)} ms measured"
    if target is None:
        return text + "; no target is on record."
    gap = measured / target - 1
    side = "above" if gap > 0 else "below"
    size = "under 0.1" if abs(gap) < 0.001 else percent(abs(gap))
    verdict = "met" if meets_target(record) else "NOT met"
    return f"{text}, {size} % {side} the target of {target_text(record)}: target {verdict}."


def _searching(record: SearchRecord) -> str:
    text = "No network found yet"
    if steps := record.get("steps"):
        estimated = ms(steps[-1]["estimated_ms"])
        text += f": step {steps[-1]['number']} is at an estimated {estimated} ms"
    if record.get("target_ms") is not None:
        text += f"{' on the way to' if steps else '; the target is'} {target_text(record)}"
    return text + "."


def disagreement_sentence(record: SearchRecord) -> str:
    """Say so where the run's own verdict is another than the numbers'; "" where it is not."""
    verdict, noted = meets_target(record), record.get("meets_target")
    if noted is None or noted == verdict:
        return ""
    word = "met" if noted else "not met"
    return f"The run itself noted the target as {word}; the numbers above say otherwise."


def accuracy_sentence(record: SearchRecord) -> str:
    """The found network's score over its final trainings; "" without any."""
    scores = record.get("found", {}).get("scores")
    if not scores:
        return ""
    images = record.get("data", {}).get("splits", {}).get("val")
    of = f", {images:,} validation images" if isinstance(images, int) else ""
    text = f"{metric(record, first=True)} is {spread_text(scores)} ({repeats(scores)}{of})."
    seed = record.get("seed_network", {})
    if seed.get("scores"):
        slow = seed.get("measured_ms")
        at = f" at {ms(slow)} ms measured" if slow is not None else ""
        name = seed.get("name", "unnamed")
        text += f" The seed network, {name}, has {spread_text(seed['scores'])}{at}."
    return text


def baseline_verdict(record: SearchRecord) -> Verdict | None:
    """The found network against the uniform-width baseline; None before both are trained."""
    found, uniform = record.get("found", {}).get("scores"), record.get("uniform", {}).get("scores")
    return compare(found, uniform) if found and uniform else None


def baseline_sentence(record: SearchRecord) -> str:
    """The found network against a uniform-width one of equal latency, wins and losses alike."""
    uniform, verdict = record.get("uniform", {}), baseline_verdict(record)
    ours, scores = record.get("found", {}).get("scores"), uniform.get("scores")
    if verdict is None or not ours or not scores:
        return "The comparison with a uniform-width baseline of equal latency is still missing."
    width, latency = uniform.get("width"), uniform.get("measured_ms")
    which = "" if width is None else f" ({_width(uniform)})"
    text = f"The uniform-width baseline{which} reaches {spread_text(scores)} ({repeats(scores)})"
    text += f" at {ms(latency)} ms measured" if latency is not None else ", not yet measured"
    gap = fmean(ours) - fmean(scores)
    if verdict == "tie":
        text += (
            f"; the difference of {signed_percent(gap)} points is a tie: it is within the range of "
        )
        text += "the training runs."
    else:
        size = "less than 0.1" if abs(gap) < 0.0005 else percent(abs(gap))
        text += f"; the found network is {size} points {verdict.upper()} it."
    if verdict == "below":
        text += " For this data and device, narrowing all widths alike did better than the search."
    if len(ours) == 1 or len(scores) == 1:
        text += " One training run says nothing about the spread: a small difference may be chance."
    return text + _unequal(measured_ms(record), latency)


def _unequal(found_ms: float | None, uniform_ms: float | None) -> str:
    gap = 0.0 if found_ms is None or uniform_ms is None else uniform_ms / found_ms - 1
    if abs(gap) <= EQUAL_LATENCY:
        return ""
    side, favored = ("slower", "baseline") if gap > 0 else ("faster", "found network")
    return (
        f" The latencies are not quite equal: the baseline is {percent(abs(gap))} % {side}, "
        f"which favors the {favored}."
    )


def missing(record: SearchRecord) -> list[str]:
    """What a finished search has and this record has not, in the order of the stages."""
    found, uniform = record.get("found", {}), record.get("uniform", {})
    parts = {
        "the latency table": record.get("table"),
        "the seed network": record.get("seed_network"),
        "the search": found,
        "the final training of the found network": found.get("scores"),
        "the uniform-width baseline": uniform.get("scores"),
        "the measurement on the device": measured_ms(record) is not None,
        "the export check": record.get("export"),
    }
    return [name for name, present in parts.items() if not present]


def missing_sentence(record: SearchRecord) -> str:
    """Which stages are missing; "" for a whole record."""
    lacks = missing(record)
    if record.get("state") == "finished":
        return f"This record is not whole: it lacks {listed(lacks)}." if lacks else ""
    text = "This run is not finished, and the report shows what there is so far."
    return f"{text} Still missing: {listed(lacks)}." if lacks else text


def table_sentence(record: SearchRecord) -> str:
    """How well the latency table predicts; "" without one."""
    table = record.get("table", {})
    if table.get("median") is None or table.get("p95") is None:
        return ""
    entries = table.get("entries")
    size = f" ({entries:,} entries)" if isinstance(entries, int) else ""
    networks = table.get("networks")
    on = several(networks, "network") if isinstance(networks, int) else "networks"
    return (
        f"The latency table{size} was {percent(table['median'])} % off in the median and "
        f"{percent(table['p95'])} % at the 95th percentile, on {on} measured and held out of its "
        "calibration."
    )


def estimate_error(network: NetworkRecord) -> float | None:
    """(estimate - measurement) / measurement of one network, a share of 1."""
    estimated, measured = network.get("estimated_ms"), network.get("measured_ms")
    return None if estimated is None or not measured else estimated / measured - 1


def total_seconds(record: SearchRecord) -> float:
    """Wall time of the run: as noted, or the sum of its stages where that is more."""
    stages = sum(stage["seconds"] for stage in record.get("stages") or [])
    return max(stages, record.get("seconds") or 0.0)


def time_sentence(record: SearchRecord) -> str:
    """The whole time, and the search's own work as a share of it."""
    total, own = total_seconds(record), record.get("overhead_seconds")
    text = f"{duration(total)} in all." if total else ""
    if text and own is not None:
        text += (
            " The search's own work (proposing, shrinking, estimating; all of it but training) "
            f"took {duration(own)}, {percent(own / total, 2)} % of that."
        )
    return text


def export_sentence(record: SearchRecord) -> str:
    """What the check of the exported file said; "" before it was made."""
    check = record.get("export")
    if not check:
        return ""
    agree, largest = check.get("label_agreement"), check.get("largest_difference")
    text = f"The exported file against the trained network, on {several(check.get('images', 0), 'image')}: "
    if agree is not None:
        share = "every label agrees" if agree == 1 else f"{percent(agree, 2)} % of the labels agree"
        text += f"{share}, and "
    text += f"nothing differs by more than {largest:.1e}." if largest is not None else "checked."
    if shipped := record.get("shipped"):
        text += f" What runs on the device is {shipped['file']} ({shipped['runtime']}, {shipped['precision']})"
        score = shipped.get("score")
        text += "." if score is None else f": {metric(record)} {percent(score, 1)} % there."
    return text


def repeats(scores: Sequence[float]) -> str:
    """What `spread_text` gives of these scores."""
    if len(scores) == 1:
        return "one training run"
    return f"mean and half the range of {several(len(scores), 'training run')}"
