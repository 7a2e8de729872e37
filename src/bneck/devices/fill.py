"""Fill a latency table: measure fused rows on a grid of widths, then whole networks.

A row is timed between two pointwise convolutions of 16 channels, whose own time (the "context"
entries) is taken off again. Alone, a row would be charged for layout changes at its borders that
do not happen inside a network; docs/decisions.md has the comparison.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from bneck.costs.table import (
    BLOCK,
    LatencyTable,
    RowShape,
    TableError,
    Widths,
    key_of,
    row_keys,
)
from bneck.costs.table_file import header_line, network_line, read_table, row_line
from bneck.devices.measure import Candidate
from bneck.devices.models import layers_model
from bneck.devices.places import Place, opened
from bneck.devices.protocol import REFERENCE, Protocol, race
from bneck.devices.runtimes import Runtime, runtime
from bneck.devices.timing import Timer
from bneck.records.ledger import Ledger
from bneck.specs.network import Layer, NetSpec, bneck_layers
from bneck.specs.rows import round8
from bneck.specs.transforms import random_widths
from bneck.specs.wrapper import PLAIN, Placed, Wrapper

CONTEXT = 16  # channels on the far side of the convolutions around a row
BATCH = 40  # graphs that race each other; what is lost when a fill is killed
LEAST = 0.2  # the narrowest width of the grid, as a share of the seed's
CALIBRATING, HELD_OUT = 30, 40
ROWS = Protocol(
    rounds=9,
    burst_ms=5.0,
    least_runs=4,
    warmup=1,
    first_warmup=3,
    max_repeats=3,
    max_spread=5,
)
NETWORKS = Protocol(rounds=9, burst_ms=12.0, max_spread=5)

Progress = Callable[[str, int, int], None]
Entry = tuple[RowShape, Widths]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a table holds: its entries, the networks that calibrate it, and whose it is.

    Every other one of `networks` calibrates it until `calibrating` of them do; the others judge it.
    `name` and `digest` are those of the seed network or of the space that it answers for; `wrapper`
    surrounds every network.
    """

    name: str
    digest: str
    entries: list[Entry]
    networks: list[NetSpec]
    calibrating: int = CALIBRATING
    wrapper: Wrapper = PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How rows and whole networks are timed, and how many graphs race each other.

    `batch` is also what is lost when a fill is killed; of whole networks half as many race.
    """

    rows: Protocol = ROWS
    networks: Protocol = NETWORKS
    batch: int = BATCH


def plan_for(
    seed: NetSpec,
    wrapper: Wrapper = PLAIN,
    *,
    calibrating: int = CALIBRATING,
    held_out: int = HELD_OUT,
) -> Plan:
    """The table for every narrower version of `seed`, each in the same wrapper."""
    return Plan(
        name=seed.name,
        digest=seed.digest(),
        entries=grid(seed, wrapper),
        networks=calibration_networks(seed, calibrating + held_out),
        calibrating=calibrating,
        wrapper=wrapper,
    )


def plan_for_all(
    covering: Iterable[NetSpec],
    networks: Sequence[NetSpec],
    *,
    name: str,
    digest: str,
    wrapper: Wrapper = PLAIN,
) -> Plan:
    """The table for every network whose rows lie between those of `covering`.

    Args:
        covering: networks that together have every shape, and every least and greatest width.
        networks: what calibrates and judges the table; as many as for a seed (`CALIBRATING` and `HELD_OUT`).
        name: of what they are.
        digest: of the same.
        wrapper: surrounds all of them.
    """
    seen: dict[RowShape, set[Widths]] = {}
    for spec in covering:
        for shape, widths in row_keys(spec, wrapper):
            seen.setdefault(shape, set()).add(widths)
    rows = [
        (shape, widths)
        for shape, points in seen.items()
        for widths in product(*_corners(shape, points))
    ]
    return Plan(
        name=name,
        digest=digest,
        entries=_in_order(rows),
        networks=list(networks),
        wrapper=wrapper,
    )


def fill_table(
    seed: NetSpec,
    path: Path,
    *,
    plan: Plan | None = None,
    runtime_name: str = "onnxruntime",
    precision: str = "fp32",
    place: str | Place = "local",
    threads: int = 1,
    nominal_ms: float | None = None,
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure what is missing of a table. Every finished batch is kept, whatever happens then.

    Args:
        seed: the network whose pace all times are divided by.
        plan: what the table shall hold; None: every narrower version of `seed`.
        path: the table's file; entries that it holds are not measured again.
        runtime_name: the engine.
        precision: "fp32" or "int8".
        place: the device.
        threads: of the engine.
        nominal_ms: the seed's time that means pace 1, from an earlier table of it; None measures it.
        effort: how carefully; None takes the usual one.
        progress: called with (what, done, all) as entries come in.

    Raises:
        TableError: `path` is a table of something else.
        InputError: no such runtime or device, or one that is lost for good.
    """
    engine, plan = runtime(runtime_name), plan or plan_for(seed)
    with opened(place) as device:
        device.check(runtime_name)
        what = _What(seed, plan, engine, precision, device, threads, effort or Effort())
        # The seed itself: what disturbs the machine slows it as it slows its narrower versions.
        with closing(what.network(seed)) as reference:
            table, file = _open(what, path, reference, nominal_ms)
            _fill_rows(what, table, file, reference, progress)
            _fill_networks(what, table, file, reference, progress)
    return table


@dataclass(frozen=True, slots=True)
class _What:
    """What a table is about; `seed` gives the pace."""

    seed: NetSpec
    plan: Plan
    engine: Runtime
    precision: str
    place: Place
    threads: int
    effort: Effort

    def network(self, spec: NetSpec) -> Timer:
        candidate = Candidate(spec, precision=self.precision, wrapper=self.plan.wrapper)
        return candidate.timer(self.place, self.engine, self.threads)

    def row(self, entry: Entry) -> Timer:
        walk = list(_walk(*entry))
        shape = entry[0]
        model = layers_model(
            walk,
            self.engine,
            self.precision,
            padding=shape.padding,
            gate="sigmoid" if shape.gate == "sigmoid" else "hsigmoid",
        )
        size = (walk[0].width_in, *walk[0].size_in)
        return self.place.load(model, runtime=self.engine.name, threads=self.threads, size=size)


def _paced_ms(
    what: _What,
    timers: Mapping[str, Callable[[], Timer]],
    reference: Timer,
    protocol: Protocol,
    table: LatencyTable,
) -> list[float]:
    """Load, race and drop again: the time of each at the pace of the table, in milliseconds."""
    nominal = float(table.header["reference_ms"])
    with ExitStack() as stack:
        loaded = {name: stack.enter_context(closing(load())) for name, load in timers.items()}
        protocol = replace(protocol, threads=what.threads)
        samples = race(loaded, reference, protocol, nominal_ms=nominal)
    return [statistics.median(samples[name].paced_ms) for name in timers]


def _fill_rows(
    what: _What, table: LatencyTable, file: Ledger, reference: Timer, progress: Progress | None
) -> None:
    wanted = [e for e in what.plan.entries if e[1] not in table.rows.get(e[0], {})]
    size = what.effort.batch
    for start in range(0, len(wanted), size):
        batch = wanted[start : start + size]
        timers = {str(i): partial(what.row, entry) for i, entry in enumerate(batch)}
        found = _paced_ms(what, timers, reference, what.effort.rows, table)
        _enter_rows(table, file, dict(zip(batch, found, strict=True)))
        if progress:
            progress("rows", start + len(batch), len(wanted))


def _enter_rows(table: LatencyTable, file: Ledger, times: dict[Entry, float]) -> None:
    lines = []
    for (shape, widths), raw in sorted(
        times.items(), key=lambda item: item[0][0].kind != "context"
    ):
        ms = raw
        if shape.kind != "context":
            ms -= (
                sum(table.rows[context[0]][context[1]] for context in _contexts(shape, widths)) / 2
            )
        # No row takes less than no time; one that hardly takes any may come out below the
        # convolutions around it by the spread of the clock.
        ms = max(0.0, ms)
        table.add_row(shape, widths, ms)
        lines.append(row_line(shape, widths, ms))
    file.append(*lines)


def grid(seed: NetSpec, wrapper: Wrapper = PLAIN) -> list[Entry]:
    """The entries of a table for `seed`: every row shape on a grid of widths, contexts first."""
    by_shape: dict[RowShape, list[tuple[Widths, tuple[bool, ...]]]] = {}
    for placed in wrapper.rows(seed):
        shape, widths = key_of(placed, seed)
        by_shape.setdefault(shape, []).append((widths, _free(placed, widths)))
    rows = [
        (shape, widths)
        for shape, seen in by_shape.items()
        for widths in product(*_axes(shape, seen))
    ]
    return _in_order(rows)


def _in_order(rows: list[Entry]) -> list[Entry]:
    """Rows in the order of measuring, what must be known before them first."""
    contexts = dict.fromkeys(c for entry in rows for c in _contexts(*entry))
    # Shuffled, so that what disturbs one batch does not fall on one shape alone.
    random.Random(0).shuffle(rows)
    return [*contexts, *rows]


def calibration_networks(seed: NetSpec, count: int = CALIBRATING + HELD_OUT) -> list[NetSpec]:
    """The random narrower networks of a table for `seed`, the same at every call."""
    rng = random.Random(0)
    return [random_widths(seed, rng) for _ in range(count)]


def _free(placed: Placed, widths: Widths) -> tuple[bool, ...]:
    """Which widths of a row a search narrows: not the image's channels, not the classes."""
    into, others = placed.free
    return (into, *[others] * (len(widths) - 1))


def _axes(shape: RowShape, seen: list[tuple[Widths, tuple[bool, ...]]]) -> Iterator[list[int]]:
    names = {"conv": ("in", "out"), "pool": ("in",), "bneck": ("in", "expanded", "out")}[shape.kind]
    if shape.kind == "bneck" and not shape.expands:
        names = ("expanded", "out")
    for axis, name in enumerate(names):
        widths = {w[axis] for w, _ in seen}
        narrowed = {w[axis] for w, free in seen if free[axis]}
        if not narrowed:
            yield sorted(widths)
            continue
        low, high = min(round8(LEAST * min(narrowed)), *widths), max(widths)
        points = 5 if name == "expanded" else 4 if shape.kind == "conv" else 3
        steps = (low + (high - low) * i / (points - 1) for i in range(points))
        # Whole blocks, and 8 where narrower than one: see `costs.table.Line`.
        least = 8 if low < BLOCK else low // BLOCK * BLOCK
        yield sorted({least, *(-(-int(step) // BLOCK) * BLOCK for step in steps)})


def _corners(shape: RowShape, points: set[Widths]) -> Iterator[list[int]]:
    """Few widths an axis, from the least to the greatest one seen, in whole blocks."""
    for axis, seen in enumerate(zip(*points, strict=True)):
        low, high = min(seen), max(seen)
        if low == high:
            yield [low]
            continue
        least = 8 if low < BLOCK else low // BLOCK * BLOCK
        most = -(-high // BLOCK) * BLOCK
        expanded = shape.kind == "bneck" and axis == len(next(iter(points))) - 2
        # An expansion spans an order of magnitude, a width hardly more than a factor of two.
        between = round((least * most) ** 0.5 / BLOCK) * BLOCK if expanded else least
        yield sorted({least, max(least, between), most})


def _contexts(shape: RowShape, widths: Widths) -> list[Entry]:
    """The context entries, half of each of which is part of a row's raw time."""
    behind = (1, 1) if shape.kind == "pool" else _out_size(shape)
    after = (RowShape("context", *behind), (widths[-1],))
    if widths[0] <= 4:  # the image: nothing stands before the stem
        return [after]
    return [(RowShape("context", shape.height, shape.width), (widths[0],)), after]


def _out_size(shape: RowShape) -> tuple[int, int]:
    return -(-shape.height // shape.stride), -(-shape.width // shape.stride)


def _walk(shape: RowShape, widths: Widths) -> Iterator[Layer]:
    """The layers of one entry's graph: a narrow conv, the row, a narrow conv."""
    size, behind = (shape.height, shape.width), _out_size(shape)
    if widths[0] > 4:
        yield _pointwise("before", 0, CONTEXT, widths[0], size)
    match shape.kind:
        case "pool":
            behind = (1, 1)
            yield Layer(
                name="row",
                kind="pool",
                row=1,
                width_in=widths[0],
                out=widths[0],
                size_in=size,
                size_out=behind,
            )
        case "conv":
            yield Layer(
                name="row", kind="conv", row=1, width_in=widths[0], out=widths[1], size_in=size,
                size_out=behind, kernel=shape.kernel, stride=shape.stride, act=shape.act,
            )  # fmt: skip
        case "bneck":
            row = shape.bneck(widths)
            yield from bneck_layers(1, row, widths[0], size, expands=shape.expands, skip=False)
    yield _pointwise("after", 2, widths[-1], CONTEXT, behind)


def _pointwise(name: str, row: int, width_in: int, out: int, size: tuple[int, int]) -> Layer:
    return Layer(
        name=name, kind="conv", row=row, width_in=width_in, out=out, size_in=size, size_out=size
    )


def _open(
    what: _What, path: Path, reference: Timer, nominal_ms: float | None
) -> tuple[LatencyTable, Ledger]:
    """The table at `path`, begun with a header if there is none."""
    seed, plan = what.seed, what.plan
    path.parent.mkdir(parents=True, exist_ok=True)
    file = Ledger(path)
    if not file.entries:
        if nominal_ms is None:
            race_ms = race({}, reference, Protocol(threads=what.threads), nominal_ms=None)[
                REFERENCE
            ].round_ms
            nominal_ms = statistics.median(race_ms)
        device = what.place.describe()
        file.append(
            header_line(
                {
                    "seed": plan.name,
                    "digest": plan.digest,
                    **({"wrapper": plan.wrapper.key} if plan.wrapper.key else {}),
                    "resolution": seed.resolution,
                    "place": what.place.name,
                    "processor": device.processor,
                    "runtime": what.engine.name,
                    "runtime_version": what.place.version(what.engine.name),
                    "precision": what.precision,
                    "threads": what.threads,
                    "reference": seed.name,
                    "reference_ms": nominal_ms,
                }
            )
        )
    table = read_table(path, plan.wrapper)
    if table.header["digest"] != plan.digest:
        raise TableError(
            f"{path} is a latency table for {table.header['seed']}; this is for {plan.name}, "
            "name another file"
        )
    wanted = (what.engine.name, what.precision, what.threads, what.place.name)
    keys = ("runtime", "precision", "threads", "place")
    if (found := tuple(table.header[key] for key in keys)) != wanted:
        raise TableError(
            f"{path} is a latency table for {_said(*found)}; this is for {_said(*wanted)}, name another file"
        )
    return table, file


def _said(runtime_name: str, precision: str, threads: int, place: str) -> str:
    where = "" if place == "local" else f" of {place}"
    return f"{runtime_name} in {precision} on {threads} thread{'s' if threads > 1 else ''}{where}"


def _fill_networks(
    what: _What, table: LatencyTable, file: Ledger, reference: Timer, progress: Progress | None
) -> None:
    """Measure whole networks: some calibrate the table, the others judge it."""
    specs = what.plan.networks
    while (done := len(table.networks)) < len(specs):
        batch = specs[done : done + what.effort.batch // 2]
        timers = {str(i): partial(what.network, spec) for i, spec in enumerate(batch)}
        times = _paced_ms(what, timers, reference, what.effort.networks, table)
        lines = []
        for i, (spec, ms) in enumerate(zip(batch, times, strict=True)):
            # Every other network is held out until enough calibrate, so both see the same minutes.
            held_out = (done + i) % 2 == 1 or done + i >= 2 * what.plan.calibrating
            entry = (table.sum_rows(spec), ms, held_out)
            table.add_network(*entry)
            lines.append(network_line(*entry))
        file.append(*lines)
        if progress:
            progress("networks", len(table.networks), len(specs))
