"""Several runs in one study: whose a trial is, one reward for all, and no network judged by two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from bneck.nas.ledger import LedgerError
from bneck.nas.reward import Reward
from bneck.nas.trials import DIGEST, DONE

RUN, TERMS = "run", "reward terms"  # attributes of a trial and of a study
ALIKE = 0.1  # how far the aims of runs may be apart, as a fraction


def is_of(trial: FrozenTrial, run: str | None) -> bool:
    """Whether a trial is that run's; a run that is alone owns all."""
    return run is None or trial.user_attrs.get(RUN) == run


def taken(trials: Sequence[FrozenTrial], number: int, digest: str) -> bool:
    """Whether a trial of a lower number is for the same network: of two that ask at once one yields."""
    # The storage numbers trials in the order in which they become visible: the later one sees the earlier.
    live = (t for t in trials if t.state in (TrialState.RUNNING, *DONE))
    return any(t.number < number and t.user_attrs.get(DIGEST) == digest for t in live)


def agreed_reward(study: optuna.Study, reward: Reward) -> Reward:
    """The reward that the first run of a study began it with.

    Raises:
        LedgerError: the runs want something else, or their machines differ.
    """
    if TERMS not in study.user_attrs:
        study.set_user_attr(TERMS, asdict(reward))
    first = Reward(**study.user_attrs[TERMS])
    # Every run measures what a target in percent means and its table's error: a little differs each time.
    aims = [(first.target_ms, reward.target_ms), (first.limit_ms or 0, reward.limit_ms or 0)]
    same = first == replace(reward, target_ms=first.target_ms, limit_ms=first.limit_ms)
    if not same or any(abs(own - aim) > ALIKE * aim for aim, own in aims):
        raise LedgerError(
            f"the study {study.study_name!r} was begun with {first}, this run has {reward}; runs of one study "
            "need the same target, slack and reward, and machines alike"
        )
    return first
