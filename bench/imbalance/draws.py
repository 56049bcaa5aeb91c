"""The records of the imbalance part as they are drawn: which key, which user. Pure; seeds come in."""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Sequence

import msgspec

USERS = 1_000_000


class Mix(msgspec.Struct, frozen=True):
    """How often each key comes: `parts[i]` of all records carry `keys[i]`; they need not add up to 1.

    `zipf`: the exponent s of the users' law, where user r of a million has a part of r^-s; None: all alike.
    `exact`: the parts are numbers of records, which `records()` keeps to one.
    """

    keys: tuple[str, ...]
    parts: tuple[float, ...]
    zipf: float | None = None
    exact: bool = False

    @classmethod
    def one_hot(cls, share: float, keys: int, zipf: float | None = None) -> Mix:
        """`nike` with `share` of all records, and the rest drawn evenly over the others."""
        others = tuple(f"adv{n}" for n in range(keys - 1))
        return cls(("nike", *others), (share, *[(1 - share) / len(others)] * len(others)), zipf)

    @classmethod
    def counted(cls, **records: int) -> Mix:
        """Exactly so many records of each key."""
        return cls(tuple(records), tuple(map(float, records.values())), exact=True)

    @property
    def part(self) -> tuple[float, ...]:
        """The parts, as shares of all records."""
        total = sum(self.parts)
        return tuple(part / total for part in self.parts)


def records(mix: Mix, count: int, producer: int, producers: int, seed: int) -> Sequence[int]:
    """The key, as an index, of each record that one of the producers sends when all send `count` together."""
    chance = random.Random(f"{seed}/keys/{producer}")
    if not mix.exact:
        mine = len(range(producer, count, producers))
        return array("L", chance.choices(range(len(mix.keys)), cum_weights=cumulated(mix.parts), k=mine))
    if count != sum(mix.parts):
        raise ValueError(f"{count} records were asked for, of a mix that has exactly {sum(mix.parts):.0f}")
    counts = [int(part) for part in mix.parts]
    all_of_them = list(itertools.chain.from_iterable([key] * n for key, n in enumerate(counts)))
    random.Random(f"{seed}/order").shuffle(all_of_them)
    return array("L", all_of_them[producer::producers])


def cumulated(parts: Sequence[float]) -> list[float]:
    """The running totals that `random.choices` takes."""
    return list(itertools.accumulate(parts))


class Users:
    """Draws users 0..999,999: all alike, or by Zipf's law, user 0 the most frequent."""

    def __init__(self, zipf: float | None, seed: str) -> None:
        self._random = random.Random(seed)
        self._weights = None if zipf is None else cumulated(zipf_weights(zipf))

    def draw(self, count: int) -> list[int]:
        """The next `count` users."""
        if self._weights is None:
            draw = self._random.random
            return [int(draw() * USERS) for _ in range(count)]
        return self._random.choices(range(USERS), cum_weights=self._weights, k=count)


def zipf_weights(exponent: float) -> list[float]:
    """r^-exponent for every rank r = 1..1,000,000."""
    return [rank**-exponent for rank in range(1, USERS + 1)]


def heaviest(exponent: float) -> float:
    """The part of the most frequent user: 1 over the generalised harmonic number."""
    return 1.0 / sum(zipf_weights(exponent))


def best_imbalance(background: Sequence[float], hot: float, heaviest_value: float) -> float:
    """The imbalance that no plan can go below, when values of the hot key stay whole and other keys at home.

    With B the load of the partitions without the hot key, h the hot key's and v the part of its most frequent
    value: `max(mean, max B, h*v + min B) / mean`, where `mean = (sum B + h) / partitions`. The most frequent
    value has to be on some partition, and the best is the one with the least of others.
    """
    mean = (sum(background) + hot) / len(background)
    return max(mean, max(background), hot * heaviest_value + min(background)) / mean
