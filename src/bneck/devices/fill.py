"""Fill a latency table: measure fused rows at a few widths, then whole networks.

A row is timed between two pointwise convolutions of 16 channels, whose own time (the "context"
entries) is subtracted. Alone, a row would be charged for layout changes at its borders that do not
happen inside a network; docs/decisions.md has the comparison.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from bneck.costs.laws import BLOCK
from bneck.costs.table import Key, LatencyTable, RowShape, TableError, Widths, key_of, row_keys
from bneck.costs.table_file import header_line, network_line, read_table, row_line
from bneck.devices.measure import Candidate
from bneck.devices.models import layers_model
from bneck.devices.places import Place, opened
from bneck.devices.protocol import REFERENCE, Protocol, Samples, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.devices.timing import Timer
from bneck.records.ledger import Ledger
from bneck.specs.network import Gate, Layer, NetSpec, bneck_layers
from bneck.specs.wrapper import PLAIN, Wrapper

CONTEXT = 16  # channels on the far side of the convolutions around a row
# Where a runtime puts a network's buffers makes one load of it differ from another by some percent.
CONTEXT_LOADS, REFERENCE_LOADS = 3, 5
BATCH = 40  # graphs that race each other; what a killed fill loses
FLOOR = 8  # channels, the least that any row is narrowed to
NETWORKS_IN_ALL = 40  # half of them calibrate, half are held out
# Measured rows of a shape, by how many widths it has: a law of some ten terms is fitted to them.
POINTS = {1: 8, 2: 14, 3: 24}
RATIO, EXPANSION_RATIO = 2.0, 1.7  # of neighboring widths on the grid
ROWS = Protocol(
    rounds=5, burst_ms=3.0, least_runs=4, warmup=1, first_warmup=3, max_repeats=3, max_spread=5
)
# As long bursts as networks are verified by: after a short one the reference is less warm, by some percent.
NETWORKS = Protocol(rounds=2, loads=3, burst_ms=30.0, max_repeats=3, max_spread=5)

Progress = Callable[[str, int, int], None]
Load: TypeAlias = Callable[[], Timer]
# The networks of a table, given its rows; the same ones at every call.
Draw: TypeAlias = Callable[[LatencyTable, int], Sequence[NetSpec]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a table holds: its entries, the networks that calibrate it, and what it answers for.

    When the rows are measured, `draw` is called with the table of them and `count`. Every other network
    calibrates the table, the others evaluate it. `name` and `digest` are those of the seed network or
    of the search space; `wrapper` surrounds every network.
    """

    name: str
    digest: str
    entries: list[Key]
    draw: Draw
    count: int = NETWORKS_IN_ALL
    wrapper: Wrapper = PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How rows and whole networks are timed, and how many rows race each other.

    `batch` is also what a killed fill loses; of whole networks half as many race.
    """

    rows: Protocol = ROWS
    networks: Protocol = NETWORKS
    batch: int = BATCH


def plan_for(
    seed: NetSpec, draw: Draw, wrapper: Wrapper = PLAIN, *, count: int = NETWORKS_IN_ALL
) -> Plan:  # fmt: skip
    """The table for every narrower version of `seed`, each in the same wrapper; see `Plan`."""
    return Plan(
        name=seed.name, digest=seed.digest(), entries=grid(seed, wrapper), draw=draw, count=count,
        wrapper=wrapper,
    )  # fmt: skip


def plan_for_all(
    covering: Iterable[NetSpec], networks: Sequence[NetSpec], *, name: str, digest: str,
    wrapper: Wrapper = PLAIN,
) -> Plan:  # fmt: skip
    """The table for every network whose rows lie between those of `covering`, in a wrapper.

    `covering` together have every shape, and every least and greatest width. `networks` calibrate and
    evaluate the table; as many as for a seed (`NETWORKS_IN_ALL`). `name` and `digest` are those of the
    search space.
    """
    seen: dict[RowShape, set[Widths]] = {}
    for spec in covering:
        for shape, widths in row_keys(spec, wrapper):
            seen.setdefault(shape, set()).add(widths)
    entries = _in_order(
        (shape, widths)
        for shape, points in seen.items()
        for widths in product(*_corners(shape, points))
    )
    return Plan(
        name=name, digest=digest, entries=entries, draw=lambda table, count: networks,
        count=len(networks), wrapper=wrapper,
    )  # fmt: skip


def grid(seed: NetSpec, wrapper: Wrapper = PLAIN) -> list[Key]:
    """The entries of a table for `seed`: some widths of every row shape, contexts first."""
    seen: dict[RowShape, list[tuple[Widths, tuple[bool, bool]]]] = {}
    for placed in wrapper.rows(seed):
        shape, widths = key_of(placed, seed)
        seen.setdefault(shape, []).append((widths, placed.free))
    return _in_order(
        (shape, widths) for shape, points in seen.items() for widths in _spread(shape, points)
    )


def _in_order(entries: Iterable[Key]) -> list[Key]:
    """Rows in the order of measuring, the contexts that they need first."""
    rows = list(entries)
    contexts = dict.fromkeys(context for entry in rows for context in _contexts(*entry))
    # Shuffled, so that what disturbs one batch does not fall on one shape alone.
    random.Random(0).shuffle(rows)
    return [*contexts, *rows]


def _spread(shape: RowShape, seen: list[tuple[Widths, tuple[bool, bool]]]) -> list[Widths]:
    """Widths to measure: the widest, the narrowest, and always what is farthest from all before.

    `seen` says of each row whether a search narrows its widths.
    """
    axes = list(_axes(shape, seen))
    # Where all rows have a residual, their input and their output narrow together.
    tied = shape.stride == 1 and shape.expands and all(w[0] == w[-1] for w, _ in seen)
    left = [w for w in product(*axes) if not tied or w[0] == w[-1]]
    free = sum(len(axis) > 1 for axis in axes)
    chosen, nearest = list[Widths](), dict.fromkeys(left, math.inf)

    def choose(widths: Widths) -> None:
        chosen.append(widths)
        for other in left:
            nearest[other] = min(nearest[other], _apart(other, widths))

    choose(max(left))
    choose(min(left))
    while len(chosen) < min(len(left), POINTS.get(free, 1)):
        choose(max(left, key=lambda w: (nearest[w], w)))
    return list(dict.fromkeys(chosen))


def _apart(one: Widths, other: Widths) -> float:
    """How far from each other: narrow rows are told apart as finely as wide ones, by ratios."""
    return sum(math.log(a / b) ** 2 for a, b in zip(one, other, strict=True))


def _axes(shape: RowShape, seen: list[tuple[Widths, tuple[bool, bool]]]) -> Iterator[list[int]]:
    """The widths that may be measured, axis by axis: from `FLOOR` up, by ratios, in whole blocks."""
    for axis in range(len(seen[0][0])):
        widths = {found[axis] for found, _ in seen}
        # The channels of the image and the classes are not narrowed.
        if not any(free[min(axis, 1)] for _, free in seen):
            yield sorted(widths)
            continue
        # Rows of a head whose widths stay are among them, and may be narrower than the floor.
        low, high = min(FLOOR, *widths), _block_above(max(widths))
        ratio, points = EXPANSION_RATIO if _is_expansion(shape, axis) else RATIO, [FLOOR]
        while (width := max(points[-1] + 1, points[-1] * ratio)) < high * 0.85:
            points.append(_block_above(int(width - BLOCK / 2)))
        yield sorted({low, *points, high})


def _corners(shape: RowShape, points: set[Widths]) -> Iterator[list[int]]:
    """Few widths per axis, from the least to the greatest one seen, in whole blocks."""
    for axis, seen in enumerate(zip(*points, strict=True)):
        low, high = min(seen), max(seen)
        if low == high:
            yield [low]
            continue
        least, most = _block_below(low), _block_above(high)
        # An expansion spans an order of magnitude, a width hardly more than a factor of two.
        middle = round((least * most) ** 0.5 / BLOCK) * BLOCK if _is_expansion(shape, axis) else 0
        yield sorted({least, max(least, middle), most})


def _is_expansion(shape: RowShape, axis: int) -> bool:
    """Whether an axis of a row's widths is that of a bneck's expanded channels."""
    return shape.kind == "bneck" and axis == (1 if shape.expands else 0)


def _block_below(width: int) -> int:
    # 8 where narrower than a block: see `costs.table.Line`.
    return 8 if width < BLOCK else width // BLOCK * BLOCK


def _block_above(width: int) -> int:
    return -(-width // BLOCK) * BLOCK


def _contexts(shape: RowShape, widths: Widths) -> list[Key]:
    """The context entries, half of each of which is part of a row's raw time."""
    after = (RowShape("context", *_out_size(shape)), (widths[-1],))
    if widths[0] <= 4:  # the image: nothing comes before the stem
        return [after]
    return [(RowShape("context", shape.height, shape.width), (widths[0],)), after]


def _out_size(shape: RowShape) -> tuple[int, int]:
    if shape.kind == "pool":
        return 1, 1
    return -(-shape.height // shape.stride), -(-shape.width // shape.stride)


def _walk(shape: RowShape, widths: Widths) -> Iterator[Layer]:
    """The layers of one entry's graph: a narrow conv, the row, a narrow conv."""
    size, size_out = (shape.height, shape.width), _out_size(shape)
    if widths[0] > 4:
        yield _pointwise("before", 0, CONTEXT, widths[0], size)
    match shape.kind:
        case "pool" | "conv":
            yield Layer(
                name="row", kind="pool" if shape.kind == "pool" else "conv", row=1, width_in=widths[0],
                out=widths[-1], size_in=size, size_out=size_out, kernel=shape.kernel,
                stride=shape.stride, act=shape.act,
            )  # fmt: skip
        case "bneck":
            row = shape.bneck(widths)
            yield from bneck_layers(1, row, widths[0], size, expands=shape.expands, skip=False)
    yield _pointwise("after", 2, widths[-1], CONTEXT, size_out)


def _pointwise(name: str, row: int, width_in: int, out: int, size: tuple[int, int]) -> Layer:
    return Layer(
        name=name, kind="conv", row=row, width_in=width_in, out=out, size_in=size, size_out=size
    )


def filling_s(plan: Plan, seed_ms: float) -> float:
    """About how many seconds an empty table takes where the seed network takes `seed_ms`."""
    usual = Effort()
    return usual.rows.seconds(len(plan.entries), seed_ms) + usual.networks.seconds(
        plan.count, seed_ms, seed_ms
    )


def fill_table(
    seed: NetSpec,
    path: Path,
    *,
    plan: Plan,
    runtime_name: str = "onnxruntime",
    precision: str = "fp32",
    place: str | Place = "local",
    threads: int = 1,
    nominal_ms: float | None = None,
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure what a table lacks. Every finished batch is kept, whatever happens then.

    Args:
        seed: the network whose slowdown factor all times are divided by.
        plan: what the table shall hold.
        path: the table's file; entries that it holds are not measured again.
        runtime_name: the runtime.
        precision: "fp32", "fp16" or "int8".
        place: the device.
        threads: of the runtime.
        nominal_ms: the seed's time at factor 1, from an earlier table of it; None measures it.
        effort: how carefully; None takes the usual one.
        progress: called with (what, done, all) as entries come in.

    Raises:
        TableError: `path` is a table of something else.
        InputError: no such runtime or device, or one that is lost for good.
    """
    engine = runtime(runtime_name)
    with opened(place) as device:
        device.check(runtime_name)
        filling = _Filling(plan, engine, precision, device, threads, effort or Effort(), progress)
        # The seed itself: what disturbs the machine slows it as it slows its narrower versions.
        reference = filling.network(seed)
        table, file = filling.begun(seed, path, reference, nominal_ms)
        filling.fill_rows(table, file, reference)
        filling.fill_networks(table, file, reference)
    return table


@dataclass(frozen=True, slots=True)
class _Filling:
    plan: Plan
    engine: Runtime
    precision: str
    place: Place
    threads: int
    effort: Effort
    progress: Progress | None

    def network(self, spec: NetSpec) -> Load:
        """A network as something to load, whose file is written once."""
        candidate = Candidate(spec, precision=self.precision, wrapper=self.plan.wrapper)
        candidate = replace(candidate, model=candidate.file(self.engine))
        return lambda: candidate.timer(self.place, self.engine, self.threads)

    def row(self, entry: Key) -> Timer:
        walk, shape = list(_walk(*entry)), entry[0]
        gate: Gate = "sigmoid" if shape.gate == "sigmoid" else "hsigmoid"
        model = layers_model(walk, self.engine, self.precision, padding=shape.padding, gate=gate)
        size = (walk[0].width_in, *walk[0].size_in)
        return self.place.load(model, runtime=self.engine.name, threads=self.threads, size=size)

    def begun(
        self, seed: NetSpec, path: Path, reference: Load, nominal_ms: float | None
    ) -> tuple[LatencyTable, Ledger]:
        """The table at `path`, begun with a header if there is none."""
        plan = self.plan
        path.parent.mkdir(parents=True, exist_ok=True)
        file = Ledger(path)
        on: dict[str, Any] = {
            "runtime": self.engine.name,
            "precision": self.precision,
            "threads": self.threads,
            "place": self.place.name,
        }
        if not file.entries:
            if nominal_ms is None:
                nominal_ms = self.nominal_ms(reference)
            header = {
                "seed": plan.name,
                "digest": plan.digest,
                **({"wrapper": plan.wrapper.key} if plan.wrapper.key else {}),
                "resolution": seed.resolution,
                "place": self.place.name,
                "processor": self.place.describe().processor,
                "runtime": self.engine.name,
                "runtime_version": self.place.version(self.engine.name),
                "precision": self.precision,
                "threads": self.threads,
                "reference": seed.name,
                "reference_ms": nominal_ms,
            }
            file.append(header_line(header))
        table = read_table(path, plan.wrapper)
        found = table.header
        if found["digest"] != plan.digest:
            raise TableError(
                f"{path} is a latency table for {found['seed']}; this is for {plan.name}, name another file"
            )
        if any(found[key] != value for key, value in on.items()):
            raise TableError(
                f"{path} is a latency table for {_said(**{key: found[key] for key in on})}; this is for "
                f"{_said(**on)}, name another file"
            )
        return table, file

    def nominal_ms(self, reference: Load) -> float:
        """The reference's median in a quiet burst, over several loads: what all times are relative to."""
        protocol, times = Protocol(threads=self.threads), list[float]()
        for _ in range(REFERENCE_LOADS):
            with closing(reference()) as timer:
                times.append(min(race({}, timer, protocol)[REFERENCE].round_ms))
        return statistics.median(times)

    def fill_rows(self, table: LatencyTable, file: Ledger, reference: Load) -> None:
        wanted = [e for e in self.plan.entries if e[1] not in table.rows.get(e[0], {})]
        contexts = [entry for entry in wanted if entry[0].kind == "context"]
        rows = [entry for entry in wanted if entry[0].kind != "context"]
        # What is wrong with a context is wrong with every row that it is taken from.
        careful = replace(self.effort.rows, loads=CONTEXT_LOADS)
        done, size = 0, self.effort.batch
        batches = [
            (part[i : i + size], protocol)
            for part, protocol in ((contexts, careful), (rows, self.effort.rows))
            for i in range(0, len(part), size)
        ]
        for batch, protocol in batches:
            loads = [partial(self.row, entry) for entry in batch]
            times = self.undisturbed_ms(table, loads, reference, protocol)
            lines = []
            for (shape, widths), ms in zip(batch, times, strict=True):
                if shape.kind != "context":
                    ms -= sum(table.rows[one][at] for one, at in _contexts(shape, widths)) / 2
                # No row takes less than no time; one that hardly takes any may come out below the
                # convolutions around it by the spread of the clock.
                ms = max(0.0, ms)
                table.add_row(shape, widths, ms)
                lines.append(row_line(shape, widths, ms))
            file.append(*lines)
            done += len(batch)
            if self.progress:
                self.progress("rows", done, len(wanted))

    def fill_networks(self, table: LatencyTable, file: Ledger, reference: Load) -> None:
        """Measure whole networks: some calibrate the table, the others evaluate it."""
        count, wrapper = self.plan.count, self.plan.wrapper
        if len(table.networks) >= count:
            return
        specs = self.plan.draw(table.uncalibrated(), count)
        while (done := len(table.networks)) < count:
            batch = specs[done : done + self.effort.batch // 2]
            loads = [self.network(spec) for spec in batch]
            times = self.undisturbed_ms(table, loads, reference, self.effort.networks)
            lines = []
            for i, (spec, ms) in enumerate(zip(batch, times, strict=True), done):
                # Every other network is held out, so both see the same minutes.
                entry = (tuple(row_keys(spec, wrapper)), ms, i % 2 == 1)
                table.add_network(*entry)
                lines.append(network_line(*entry))
            file.append(*lines)
            if self.progress:
                self.progress("networks", len(table.networks), count)

    def undisturbed_ms(
        self, table: LatencyTable, loads: Sequence[Load], reference: Load, protocol: Protocol
    ) -> list[float]:  # fmt: skip
        """Load, race and drop again: each one's time in milliseconds at the table's slowdown factor."""
        nominal = float(table.header["reference_ms"])
        protocol = replace(protocol, threads=self.threads)
        found = [Samples() for _ in loads]
        for number in range(protocol.loads):
            with ExitStack() as stack:
                stack.enter_context(self.place.timing())
                timers = {
                    str(i): stack.enter_context(closing(one())) for i, one in enumerate(loads)
                }
                beside = stack.enter_context(closing(reference()))
                samples = race(timers, beside, protocol, seed=number, nominal_ms=nominal)
            for i, sample in enumerate(found):
                sample.extend(samples[str(i)])
        return [sample.undisturbed_ms(nominal) for sample in found]


def _said(runtime: str, precision: str, threads: int, place: str) -> str:
    where = "" if place == "local" else f" of {place}"
    return f"{runtime} in {precision} on {threads} thread{'s' if threads > 1 else ''}{where}"
