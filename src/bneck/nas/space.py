"""What may vary: a space is a list of choices, and a way from one option of each to a network."""

from __future__ import annotations

import hashlib
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec

Tokens: TypeAlias = tuple[int, ...]
Option: TypeAlias = str | int | float | bool


class SpaceError(InputError):
    """A space, a token sequence or a network that does not fit together."""


class NotInSpace(SpaceError):
    """A network that no token sequence of the space gives."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that varies: `block3.kernel` is 3 or 5. A token is the index of an option."""

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise SpaceError(f"the choice {self.name} has no options; give at least one")
        # 1 == True in Python; as options they are two things.
        if len({(type(option), option) for option in self.options}) != len(self.options):
            raise SpaceError(
                f"the choice {self.name} has an option twice among {list(self.options)}; leave one out"
            )

    @property
    def group(self) -> str:
        """What stands before the dot: choices of one block belong together."""
        return self.name.partition(".")[0]


class Space(ABC):
    """A set of networks: `choices`, and `decode` and `encode` between tokens and specs.

    What has a single option is not a choice. Different tokens may mean the same
    network (a full convolution has no squeeze-and-excite); `encode` gives one of them.
    """

    name: str
    choices: tuple[Choice, ...]

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> NetSpec:
        """The network of a token sequence; every residual is written down as "yes" or "no".

        Raises:
            SpaceError: the sequence is no list of one option index for every choice.
        """

    @abstractmethod
    def encode(self, spec: NetSpec) -> Tokens:
        """Tokens whose network has the rows of `spec`.

        Raises:
            NotInSpace: no token sequence gives it.
        """

    def outside(self, spec: NetSpec, why: str, advice: str) -> NotInSpace:
        """The error for a network that does not lie in the space."""
        return NotInSpace(f"{spec.name} does not lie in the space {self.name}: {why}; {advice}")

    @property
    def size(self) -> int:
        """How many token sequences there are."""
        return math.prod(len(choice.options) for choice in self.choices)

    def sample(self, rng: random.Random) -> Tokens:
        """Tokens drawn alike from all."""
        return tuple(rng.randrange(len(choice.options)) for choice in self.choices)

    def check(self, tokens: Sequence[int]) -> Tokens:
        """`tokens` as a tuple, if they are one of this space.

        Raises:
            SpaceError: too many, too few, or one out of range; the choice is named.
        """
        if len(tokens) != len(self.choices):
            raise SpaceError(
                f"{len(tokens)} tokens came for the space {self.name}; it has {len(self.choices)} choices, "
                "give one token for each"
            )
        for token, choice in zip(tokens, self.choices, strict=True):
            if isinstance(token, bool) or not isinstance(token, int):
                raise SpaceError(f"the token of {choice.name} is {token!r}; it must be an index")
            if not 0 <= token < len(choice.options):
                raise SpaceError(
                    f"the token of {choice.name} is {token}; allowed are 0 to {len(choice.options) - 1} for "
                    + ", ".join(map(str, choice.options))
                )
        return tuple(tokens)

    def digest(self) -> str:
        """Twelve hex digits that name the space's content; a ledger belongs to one."""
        last = [len(choice.options) - 1 for choice in self.choices]
        ends = [self.decode(tokens).digest() for tokens in ([0] * len(last), last)]
        return hashlib.sha256(repr([self.choices, ends]).encode()).hexdigest()[:12]
