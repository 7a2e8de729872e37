"""The RNN controller of MnasNet and NASNet, trained by PPO, as an Optuna sampler.

Published: one LSTM layer of 100 units, a softmax per token, PPO, Adam with a rate of 3.5e-4, entropy
weight 1e-5, an exponential average of rewards (0.95) as baseline, weights drawn from U(-0.1, 0.1),
updates on batches of 20 networks. **Not published**, and settable here: the embedding's size (that of
the LSTM), PPO's clip (0.2) and its epochs per batch (4). With the published numbers the controller is about
random search for its first few hundred trials (docs/results.md); `tuned` is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bneck.nas.samplers import OnReplay, TokenSampler
from bneck.nas.space import Choice, Tokens
from bneck.nas.trials import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class PPO:
    """How the controller learns; the defaults are the paper's, see this module's text.

    `normalise` divides a batch's advantages by their standard deviation, so that the scale of rewards
    does not matter.
    """

    hidden: int = 100
    lr: float = 3.5e-4
    entropy: float = 1e-5
    baseline: float = 0.95
    batch: int = 20
    init: float = 0.1
    clip: float = 0.2
    epochs: int = 4
    normalise: bool = False


PAPER = PPO()
TUNED = PPO(lr=1e-2, normalise=True)


class Policy(nn.Module):
    """Tokens one after the other: the last token's embedding goes in, a softmax over options comes out."""

    offsets: Tensor
    none: Tensor

    def __init__(self, sizes: Sequence[int], hidden: int, init: float, seed: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.embed = nn.Embedding(sum(sizes) + 1, hidden)  # the last one starts the sequence
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Parameter(torch.empty(len(sizes), max(sizes), hidden))
        self.bias = nn.Parameter(torch.empty(len(sizes), max(sizes)))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-init, init, generator=generator)
        self.register_buffer("offsets", torch.tensor([0, *sizes]).cumsum(0)[:-1])
        options = torch.arange(max(sizes))[None]
        self.register_buffer("none", options >= torch.tensor(sizes)[:, None])

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length) tokens -> (batch, length, options) log-probabilities, teacher-forced."""
        start = torch.full((len(tokens), 1), sum(self.sizes))
        inputs = torch.cat([start, (tokens + self.offsets)[:, :-1]], 1)
        states, _ = self.lstm(self.embed(inputs))
        scores = torch.einsum("bth,toh->bto", states, self.head) + self.bias
        return scores.masked_fill(self.none, -torch.inf).log_softmax(-1)

    @torch.no_grad()
    def sample(self, draws: Sequence[float]) -> Tokens:
        """Tokens from one uniform number each."""
        tokens: list[int] = []
        state = None
        last = torch.tensor([[sum(self.sizes)]])
        for i, (size, draw) in enumerate(zip(self.sizes, draws, strict=True)):
            out, state = self.lstm(self.embed(last), state)
            scores = (self.head[i, :size] @ out[0, 0] + self.bias[i, :size]).double()
            reached = scores.softmax(0).cumsum(0)
            token = min(int(torch.searchsorted(reached, draw, right=True)), size - 1)
            tokens.append(token)
            last = self.offsets[i].reshape(1, 1) + token
        return tuple(tokens)


class Controller(TokenSampler):
    """Samples tokens from the RNN and updates it with every `batch` finished trials.

    Its state follows from the finished trials in the order of finishing alone: a resumed search
    replays the updates and ends in the same state. A trial that an older state proposed counts as
    proposed by the one that learns from it. `on_replay` is called after every update where several
    are due, as in a resumed search.
    """

    def __init__(
        self, choices: Sequence[Choice], ppo: PPO = PAPER, *, seed: int = 0,
        on_replay: OnReplay | None = None,
    ) -> None:  # fmt: skip
        super().__init__(choices, seed=seed)
        self.ppo, self.on_replay = ppo, on_replay
        self.policy = Policy(self.sizes, ppo.hidden, ppo.init, seed)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=ppo.lr)
        self.baseline: float | None = None
        self.updates = 0

    def propose(self, history: Sequence[Judged], pending: set[Tokens], number: int) -> Tokens:
        threads = torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # matrices this small are slower on several, much slower on busy machines
        try:
            due = len(history) // self.ppo.batch - self.updates
            for n in range(1, due + 1):
                start = self.updates * self.ppo.batch
                self._update(history[start : start + self.ppo.batch])
                self.updates += 1
                if self.on_replay and due > 1:
                    self.on_replay(n, due)
            return self.policy.sample(self.rng(number).random(len(self.sizes)).tolist())
        finally:
            torch.set_num_threads(threads)

    def _update(self, batch: Sequence[Judged]) -> None:
        tokens = torch.tensor([judged.tokens for judged in batch])
        advantage = torch.tensor(self._advantages([j.value for j in batch]), dtype=torch.float32)
        old: Tensor | None = None
        for _ in range(self.ppo.epochs):
            everything = self.policy(tokens)
            chosen = everything.gather(-1, tokens[..., None])[..., 0]
            old = chosen.detach() if old is None else old
            ratio = (chosen - old).exp()
            clipped = ratio.clamp(1 - self.ppo.clip, 1 + self.ppo.clip)
            gain = torch.minimum(ratio * advantage[:, None], clipped * advantage[:, None])
            spread = -(everything.exp() * everything.masked_fill(self.policy.none, 0)).sum(-1)
            loss = -(gain + self.ppo.entropy * spread).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _advantages(self, rewards: Sequence[float]) -> list[float]:
        """Rewards less the average of those before; the average takes the batch up afterwards."""
        if self.baseline is None:
            self.baseline = float(np.mean(rewards))
        advantages = np.array(rewards) - self.baseline
        for reward in rewards:
            self.baseline += (1 - self.ppo.baseline) * (reward - self.baseline)
        if self.ppo.normalise:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return [float(a) for a in advantages]
