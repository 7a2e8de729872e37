"""Measuring whole networks: one full record each, and engines and places that do not exist."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

import bneck
from bneck.costs.count import count
from bneck.devices.measure import REFERENCE_NAME, Candidate, measure
from bneck.devices.places import describe
from bneck.devices.protocol import Protocol, TimingError
from bneck.devices.runtimes import EngineError, runtime
from bneck.graphs.onnx_graph import network_graph
from bneck.graphs.weights import random_weights
from bneck.records.measurement import Measurement
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, layers
from bneck.specs.transforms import rename, scale_width

QUICK = Protocol(rounds=3, burst_ms=1.0, first_warmup=1, max_repeats=1, max_spread=1e9)


@pytest.fixture(scope="module")
def found(tiny: NetSpec) -> list[Measurement]:
    return measure([Candidate(tiny), Candidate(scale_width(tiny, 0.5))], protocol=QUICK)


def test_everything_is_loaded_afresh_as_often_as_asked(tiny: NetSpec) -> None:
    told: list[tuple[int, int]] = []
    protocol = replace(QUICK, loads=2)
    (one,) = measure([Candidate(tiny)], protocol=protocol, on_round=lambda *at: told.append(at))
    assert one.rounds == len(one.rounds_ms) == len(one.rounds_cpu_ms) == 6
    assert told == [(i, 6) for i in range(1, 7)]


class TestRecords:
    def test_there_is_one_of_each_network_in_the_order_asked(
        self, tiny: NetSpec, found: list[Measurement]
    ) -> None:
        assert [(one.network, one.digest) for one in found] == [
            ("tiny", tiny.digest()),
            ("tiny-0.5", scale_width(tiny, 0.5).digest()),
        ]

    def test_a_record_says_all_that_is_needed_to_repeat_it(self, found: list[Measurement]) -> None:
        import onnxruntime

        for one in found:
            assert (one.runtime, one.runtime_version) == ("onnxruntime", onnxruntime.__version__)
            assert (one.precision, one.threads, one.resolution) == ("fp32", 1, 32)
            assert (one.warmup, one.rounds) == (QUICK.warmup, 3)
            assert one.n >= 3 * QUICK.least_runs
            assert one.n % 3 == 0
            assert 0 <= one.repeated <= 3
            assert one.device == describe("local")
            assert one.device.processor
            assert one.device.cores >= 1
            assert one.commit
            assert one.reference == REFERENCE_NAME
            assert one.reference_ms > 0

    def test_percentiles_are_in_order_and_times_positive(self, found: list[Measurement]) -> None:
        for one in found:
            assert 0 < one.latency_ms.p10 <= one.latency_ms.median <= one.latency_ms.p90
            assert one.cpu_ms > 0

    def test_ratios_are_taken_round_by_round(self, found: list[Measurement]) -> None:
        one, other = found
        assert len(one.rounds_ms) == len(one.rounds_cpu_ms) == 3
        by_hand = sorted(a / b for a, b in zip(one.rounds_ms, other.rounds_ms, strict=True))
        assert one.ratio(other).median == pytest.approx(by_hand[1])
        by_hand = sorted(a / b for a, b in zip(one.rounds_cpu_ms, other.rounds_cpu_ms, strict=True))
        assert one.cpu_ratio(other).median == pytest.approx(by_hand[1])
        assert one.ratio(one).median == one.ratio(one).p90 == 1.0

    def test_without_a_nominal_time_nothing_is_corrected(self, found: list[Measurement]) -> None:
        for one in found:
            assert one.pace == 1.0
            assert one.latency_ms == one.raw_latency_ms

    def test_with_a_nominal_time_the_clock_is_kept_beside_the_corrected_time(
        self, tiny: NetSpec
    ) -> None:
        (one,) = measure([Candidate(tiny)], protocol=QUICK, nominal_ms=0.001)
        assert one.pace == pytest.approx(one.reference_ms / 0.001)
        assert one.latency_ms.median < one.raw_latency_ms.median  # the machine is slower than that
        assert one.latency_ms.p10 <= one.latency_ms.median <= one.latency_ms.p90
        factor = one.latency_ms.median / one.raw_latency_ms.median
        assert one.latency_ms.p90 == pytest.approx(factor * one.raw_latency_ms.p90)

    def test_the_reference_can_be_chosen(self, tiny: NetSpec) -> None:
        (one,) = measure([Candidate(tiny)], protocol=QUICK, reference=Candidate(tiny))
        assert one.reference == "tiny"

    def test_they_survive_json(self, found: list[Measurement]) -> None:
        stored = json.loads(json.dumps([one.as_json() for one in found], allow_nan=False))
        for plain, one in zip(stored, found, strict=True):
            assert plain["rounds_ms"] == list(one.rounds_ms)
            assert set(plain) == {field.name for field in fields(Measurement)}
            assert set(plain["latency_ms"]) == {"median", "p10", "p90"}
            assert plain["latency_ms"]["median"] == one.latency_ms.median

    def test_a_network_that_does_eight_times_the_work_takes_longer(self, tiny: NetSpec) -> None:
        large = bneck.network("v3-small@96")
        assert count(large).madds > 8 * count(tiny).madds
        slow, quick = measure([Candidate(large), Candidate(tiny)], protocol=QUICK)
        assert slow.latency_ms.median > quick.latency_ms.median

    def test_progress_is_told_by_rounds(self, tiny: NetSpec) -> None:
        told: list[tuple[int, int]] = []
        measure([Candidate(tiny)], protocol=QUICK, on_round=lambda *at: told.append(at))
        assert told == [(1, 3), (2, 3), (3, 3)]


class TestCandidates:
    def test_an_exported_file_is_what_runs(self, tiny: NetSpec) -> None:
        weights = random_weights(layers(tiny), np.random.default_rng(7))
        model = network_graph(tiny, weights).SerializeToString()
        image = np.ones((1, 3, 32, 32), np.float32)
        engine = runtime("onnxruntime")
        wanted = engine.load(model, threads=1).run(image)
        got = engine.load(Candidate(tiny, model).file(engine), threads=1).run(image)
        assert np.array_equal(got, wanted)
        assert got.shape == (1, 3)
        drawn = engine.load(Candidate(tiny).file(engine), threads=1).run(image)
        assert not np.array_equal(drawn, wanted)

    def test_one_network_may_be_named_twice(self, tiny: NetSpec) -> None:
        one, other = measure([Candidate(tiny), Candidate(tiny)], protocol=QUICK)
        assert one.digest == other.digest

    def test_another_name_makes_no_other_network(self, tiny: NetSpec) -> None:
        assert Candidate(rename(tiny, "other")).spec.digest() == tiny.digest()


class TestRefused:
    def test_a_spread_is_refused_by_the_network_s_name(self, tiny: NetSpec) -> None:
        nothing_will_do = replace(QUICK, max_spread=-1.0)
        with pytest.raises(TimingError, match=r"^the times of tiny in onnxruntime fp32 spread by "):
            measure([Candidate(tiny), Candidate(tiny)], protocol=nothing_will_do)

    def test_an_unknown_runtime_lists_the_known_ones(self, tiny: NetSpec) -> None:
        with pytest.raises(
            InputError, match=r"^there is no runtime 'abacus'; known are onnxruntime"
        ):
            measure([Candidate(tiny)], runtime_name="abacus")

    def test_an_unknown_device_lists_the_known_ones(self, tiny: NetSpec) -> None:
        with pytest.raises(InputError, match=r"^there is no device 'pixel'; known are local"):
            measure([Candidate(tiny)], place="pixel")

    @pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x09" * 40])
    def test_bytes_that_are_no_model_end_in_one_line(self, tiny: NetSpec, data: bytes) -> None:
        with pytest.raises(EngineError, match=r"^onnxruntime cannot load this file: ") as caught:
            measure([Candidate(tiny, data)], protocol=QUICK)
        assert "\n" not in str(caught.value)

    def test_nothing_to_measure_is_said_so(self) -> None:
        with pytest.raises(InputError, match="nothing to measure; name a network"):
            bneck.measure()

    @pytest.mark.parametrize(("threads", "rounds"), [(0, 20), (-1, 20), (1, 2), (1, -3)])
    def test_threads_and_rounds_have_a_least(self, threads: int, rounds: int) -> None:
        with pytest.raises(InputError, match=f"threads is {threads} and rounds {rounds}"):
            bneck.measure("v3-small", threads=threads, rounds=rounds)
