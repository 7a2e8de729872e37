"""Optimiser, schedules and weight average against recurrences written out in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bneck.nets.build import build
from bneck.specs.network import NetSpec
from bneck.training.loop import backbone
from bneck.training.optim import (
    RmsPropTF,
    Schedule,
    WeightAverage,
    grouped,
    learning_rate,
    slowed,
)

GRADIENTS = (0.5, -1.0, 2.0, 0.0, 0.25)
RATES = (0.1, 0.1, 0.05, 0.05, 0.2)


def trace(
    weight: float, *, decay: float, momentum: float, eps: float, weight_decay: float
) -> list[float]:
    """TensorFlow's RMSProp by hand: the weight after each of `GRADIENTS` at each of `RATES`."""
    square, step, weights = 1.0, 0.0, []
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        gradient += weight_decay * weight
        square = decay * square + (1 - decay) * gradient * gradient
        step = momentum * step + rate * gradient / math.sqrt(square + eps)
        weight -= step
        weights.append(weight)
    return weights


class TestRmsProp:
    @pytest.mark.parametrize(
        ("decay", "momentum", "eps", "weight_decay"),
        [
            (0.9, 0.9, 2e-3, 0.0),
            (0.9, 0.9, 2e-3, 0.1),
            (0.5, 0.0, 1e-3, 0.0),
            (0.99, 0.5, 1.0, 1e-2),
        ],
    )
    def test_five_steps_follow_the_recurrence(
        self, decay: float, momentum: float, eps: float, weight_decay: float
    ) -> None:
        weight = nn.Parameter(torch.tensor([1.5, -2.0], dtype=torch.float64))
        optimizer = RmsPropTF(
            [weight], lr=1.0, decay=decay, momentum=momentum, eps=eps, weight_decay=weight_decay
        )
        got = []
        for gradient, rate in zip(GRADIENTS, RATES, strict=True):
            weight.grad = torch.tensor([gradient, gradient], dtype=torch.float64)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            got.append(weight.detach().clone())
        for i, start in enumerate((1.5, -2.0)):
            wanted = trace(
                start, decay=decay, momentum=momentum, eps=eps, weight_decay=weight_decay
            )
            assert [float(w[i]) for w in got] == pytest.approx(wanted, abs=1e-7)

    def test_five_steps_by_hand(self) -> None:
        """Worked out with a pencil: a gradient of 1 all the time, decay and momentum one half.

        Squares stay 1, so that with epsilon 0 every root is 1. Steps: 0.1, 0.15, 0.175, 0.1875,
        0.19375; the weight falls from 1 by them.
        """
        weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = RmsPropTF([weight], lr=0.1, decay=0.5, momentum=0.5, eps=0.0)
        got = []
        for _ in range(5):
            weight.grad = torch.ones(1, dtype=torch.float64)
            optimizer.step()
            got.append(weight.item())
        assert got == pytest.approx([0.9, 0.75, 0.575, 0.3875, 0.19375], abs=1e-7)

    def test_the_first_step_by_hand(self) -> None:
        weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        weight.grad = torch.tensor([3.0], dtype=torch.float64)
        RmsPropTF([weight], lr=0.1, eps=0.2).step()
        # square = 0.9 x 1 + 0.1 x 9 = 1.8; 0.1 x 3 / sqrt(1.8 + 0.2)
        assert weight.item() == pytest.approx(1 - 0.3 / math.sqrt(2), abs=1e-12)

    def test_a_parameter_without_a_gradient_stays(self) -> None:
        still, moved = (nn.Parameter(torch.ones(1)) for _ in range(2))
        moved.grad = torch.ones(1)
        RmsPropTF([still, moved], lr=0.1, weight_decay=0.5).step()
        assert still.item() == 1.0
        assert moved.item() < 1.0

    def test_the_gradient_itself_is_left_as_it_is(self) -> None:
        weight = nn.Parameter(torch.ones(2))
        weight.grad = torch.full((2,), 0.5)
        RmsPropTF([weight], lr=0.1, weight_decay=0.5).step()
        assert weight.grad.tolist() == [0.5, 0.5]


class TestWeightDecay:
    def test_only_weights_of_full_convolutions_decay(self, tiny: NetSpec) -> None:
        net = build(tiny)
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        decayed, free = grouped(net, 1e-5)
        assert {names[id(p)] for p in decayed["params"]} == {
            "rows.0.conv.weight",
            "rows.1.se.reduce.weight",
            "rows.1.se.gate.weight",
            "rows.1.project.conv.weight",
            "rows.2.expand.conv.weight",
            "rows.2.project.conv.weight",
            "rows.3.expand.conv.weight",
            "rows.3.se.reduce.weight",
            "rows.3.se.gate.weight",
            "rows.3.project.conv.weight",
            "rows.4.conv.weight",
            "rows.6.conv.weight",
            "classifier.weight",
        }
        assert (decayed["weight_decay"], free["weight_decay"]) == (1e-5, 0.0)

    def test_every_parameter_is_in_one_group(self, tiny: NetSpec) -> None:
        net = build(tiny)
        found = [id(p) for group in grouped(net, 1e-5) for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in net.parameters())

    def test_it_may_pull_at_depthwise_convolutions_or_at_everything(self, tiny: NetSpec) -> None:
        net = build(tiny)
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        pulled, free = grouped(net, 1e-5, "convolutions")
        found = {names[id(p)] for p in pulled["params"]}
        assert {"rows.1.depthwise.conv.weight", "rows.3.depthwise.conv.weight"} <= found
        assert not [name for name in found if ".bn." in name or name.endswith("bias")]
        everything, nothing = grouped(net, 1e-5, "all")
        assert len(everything["params"]) == len(names)
        assert nothing["params"] == []
        assert len(free["params"]) == sum(".bn." in n or n.endswith("bias") for n in names.values())


class TestSlowedParts:
    def test_a_part_has_groups_and_a_rate_of_its_own(self, tiny: NetSpec) -> None:
        net = build(tiny)
        part = backbone(net)
        groups = slowed(grouped(net, 1e-5), part, 0.25)
        inside = {id(p) for p in part.parameters()}
        assert {(group["rate"], group["weight_decay"]) for group in groups} == {
            (1.0, 1e-5), (1.0, 0.0), (0.25, 1e-5), (0.25, 0.0),
        }  # fmt: skip
        for group in groups:
            assert all((id(p) in inside) == (group["rate"] == 0.25) for p in group["params"])
        found = [id(p) for group in groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in net.parameters())


class TestLearningRate:
    @pytest.mark.parametrize(
        ("epoch", "wanted"),
        [
            (0.0, 0.0),
            (2.0, 0.04),  # 2/5 of the warm-up
            (4.999, 0.09998),
            (5.0, 0.1),
            (7.9, 0.1),  # steps, no slope
            (8.0, 0.099),
            (14.0, 0.0970299),  # 0.1 x 0.99^3
            (305.0, 0.1 * 0.99**100),
        ],
    )
    def test_exponential(self, epoch: float, wanted: float) -> None:
        rate = learning_rate("exponential", 0.1, epoch=epoch, epochs=600, warmup=5)
        assert rate == pytest.approx(wanted, abs=1e-12)

    @pytest.mark.parametrize(
        ("epoch", "wanted"),
        [
            (1.0, 0.05),
            (2.0, 0.1),
            (4.0, 0.05 * (1 + math.sqrt(0.5))),  # a quarter of the way: cos 45 degrees
            (6.0, 0.05),
            (8.0, 0.05 * (1 - math.sqrt(0.5))),
            (10.0, 0.0),
            (11.0, 0.0),  # and it does not rise again
        ],
    )
    def test_cosine(self, epoch: float, wanted: float) -> None:
        rate = learning_rate("cosine", 0.1, epoch=epoch, epochs=10, warmup=2)
        assert rate == pytest.approx(wanted, abs=1e-12)

    @pytest.mark.parametrize("schedule", ["exponential", "cosine"])
    def test_without_a_warm_up_it_begins_at_the_peak(self, schedule: Schedule) -> None:
        assert learning_rate(schedule, 0.1, epoch=0, epochs=10, warmup=0) == 0.1

    def test_a_run_that_is_all_warm_up_ends_at_the_peak(self) -> None:
        assert learning_rate("cosine", 0.1, epoch=2, epochs=2, warmup=2) == 0.1


class TestWeightAverage:
    @staticmethod
    def follow(decay: float, values: tuple[float, ...]) -> list[float]:
        """The average of a weight that starts at 0 and then takes `values`."""
        net = nn.BatchNorm2d(1).double()
        net.weight.data.zero_()
        average, seen = WeightAverage(net, decay), []
        for value in values:
            net.weight.data.fill_(value)
            average.update(net)
            seen.append(float(average.state["weight"]))
        return seen

    def test_it_warms_up(self) -> None:
        # Decays 2/11, 3/12 and 4/13, all below 0.9999.
        first = 9 / 11
        second = first / 4 + 2 * 3 / 4
        third = second * 4 / 13 + 3 * 9 / 13
        assert self.follow(0.9999, (1, 2, 3)) == pytest.approx([first, second, third], abs=1e-12)

    def test_it_never_holds_more_than_its_decay(self) -> None:
        # 2/11 and 3/12 are above 0.1 and 0.2.
        assert self.follow(0.1, (1, 1)) == pytest.approx([0.9, 0.99], abs=1e-12)

    def test_a_decay_of_zero_is_the_net_itself(self) -> None:
        assert self.follow(0.0, (1.25, -3.5)) == [1.25, -3.5]

    def test_statistics_are_averaged_and_counters_copied(self) -> None:
        net = nn.BatchNorm2d(1)
        average = WeightAverage(net, 0.9999)
        assert net.running_mean is not None
        assert net.num_batches_tracked is not None
        net.running_mean.fill_(11.0)
        net.num_batches_tracked.fill_(7)
        average.update(net)
        assert float(average.state["running_mean"]) == pytest.approx(9.0)  # 11 x 9/11
        assert int(average.state["num_batches_tracked"]) == 7

    def test_it_goes_on_from_a_checkpoint_as_if_unbroken(self) -> None:
        net = nn.BatchNorm2d(1).double()
        average = WeightAverage(net, 0.9999)
        net.weight.data.fill_(2.0)
        average.update(net)
        other = WeightAverage(nn.BatchNorm2d(1).double(), 0.9999)
        other.restore({k: v.clone() for k, v in average.state.items()}, average.updates)
        for one in (average, other):
            one.update(net)
        assert torch.equal(average.state["weight"], other.state["weight"])
        assert average.updates == other.updates == 2
