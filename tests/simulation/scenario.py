"""What a run is about: the policy, what producers send, and what must have become of it by when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hotkey_operator.engine.spec import PolicySpec, parse_spec
from tests.simulation.faults import DEDICATED_ALONE, Kind, Season

TOPIC = "clicks"
GROUP, BYSTANDER = "aggregator", "billing"
NIKE, ADIDAS = b"nike", b"adidas"
PRODUCERS = 3
HOT_AT = 6.0
LAG_SECONDS = 10

Rates = Mapping[bytes, float]  # records/s by key


class Shape(StrEnum):
    """What the policy asks for; the seed says which."""

    UNORDERED = "no order"
    PER_USER = "per user"
    OUTGROWS = "a key that outgrows the base topic"
    PER_KEY = "order per key"
    WARM = "a topic ready ahead of need"


class Bystander(StrEnum):
    """What a second consumer group, which has no SDK, does before it is in order."""

    NONE = "there is none"
    UNLISTED = "it reads the base topic, and the policy does not name it"
    DOES_NOT_FOLLOW = "the policy names it, and it reads the base topic alone"


@dataclass(frozen=True, slots=True)
class Heat:
    """A time in which a key carries so many records/s."""

    since: float
    until: float
    key: bytes
    rate: float


@dataclass(frozen=True, slots=True)
class Look:
    """A moment long after the last fault at which all must be as it should. `hot`: keys that are hot then."""

    at: float
    hot: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One seed's. Times are seconds of the run."""

    shape: Shape
    bystander: Bystander
    partitions: int
    more_partitions: int
    policy: Mapping[str, Any]
    hot: tuple[Heat, ...]
    quiet: Rates
    seasons: tuple[Season, ...]
    looks: tuple[Look, ...]
    in_order_at: float  # when the bystander is put in order
    thaw_at: float  # when producers that were frozen for long go on

    @property
    def dedicates(self) -> bool:
        return self.shape in (Shape.OUTGROWS, Shape.PER_KEY, Shape.WARM)

    @property
    def never(self) -> frozenset[Kind]:
        """Faults that cannot happen here."""
        return frozenset() if self.dedicates else DEDICATED_ALONE

    def rates(self, now: float, producers: int) -> dict[bytes, float]:
        """What one of so many producers sends."""
        loud = {heat.key: heat.rate for heat in self.hot if heat.since <= now < heat.until}
        return {key: rate / producers for key, rate in {**self.quiet, **loud}.items()}

    def spec(self, now: float) -> PolicySpec:
        """The policy as it stands at that time."""
        if self.bystander is Bystander.UNLISTED and now >= self.in_order_at:
            groups = self.policy.get("consumers", {}).get("groups", [])
            return parse_spec({**self.policy, "consumers": {"groups": groups, "ignore": [BYSTANDER]}})
        return parse_spec(dict(self.policy))


def _quiet(keys: int, rate: float) -> dict[bytes, float]:
    """Each of `keys` keys with so many records/s; some are named like shards."""
    names = [b"k%d" % each if each % 4 else b"k%d:%d" % (each, each) for each in range(keys)]
    return dict.fromkeys(names, rate)


def of(seed: int, unadopted: int = 0) -> Scenario:
    """The scenario of a seed. `unadopted`: producers that know no tables; then the key is hotter."""
    shape = tuple(Shape)[seed % len(Shape)]
    if shape in (Shape.UNORDERED, Shape.PER_USER):
        return _spread(seed, shape, unadopted)
    return _dedicated(seed, shape)


def _spread(seed: int, shape: Shape, unadopted: int) -> Scenario:
    policy: dict[str, Any] = {
        "topic": TOPIC,
        "dimensions": [{"name": "user_id", "from": {"header": "user"}}],
        "trigger": {"recordsPerSecond": 25},
        "release": {"for": "6s"},
    }
    if shape is Shape.PER_USER:
        policy["spread"] = {"by": [["user_id"]], "ordering": "PerDimension"}
    if seed // 5 % 2:
        policy["trigger"] = {"recordsPerSecond": 25, "lagSeconds": LAG_SECONDS}
        policy["consumers"] = {"groups": [GROUP]}
    return Scenario(
        shape=shape,
        bystander=Bystander.NONE,
        partitions=6,
        more_partitions=9,
        policy=policy,
        hot=(Heat(HOT_AT, 54.0, NIKE, 112.0 if unadopted else 38.0),),
        quiet=_quiet(20, 0.75),
        seasons=(Season(3.0, 32.0, 2, 7), Season(56.0, 66.0, 0, 3)),
        looks=(Look(54.0, (NIKE,)), Look(94.0, ())),
        in_order_at=0.0,
        thaw_at=76.0,
    )


def _dedicated(seed: int, shape: Shape) -> Scenario:
    turn = seed // len(Shape)
    policy: dict[str, Any] = {
        "topic": TOPIC,
        "dimensions": [{"name": "user_id", "from": {"header": "user"}}],
        "trigger": {"recordsPerSecond": 6},
        "release": {"for": "5s"},
        "dedicatedTopic": {"enabled": True},
        "limits": {"changesPerMinute": 60},
        "consumers": {"groups": [GROUP]},
    }
    if turn % 2 and shape is not Shape.PER_KEY:
        policy["spread"] = {"by": [["user_id"]], "ordering": "PerDimension"}
    if shape is Shape.PER_KEY:
        policy["spread"] = {"ordering": "PerKey"}
    if shape is Shape.WARM:
        policy["dedicatedTopic"] = {"enabled": True, "warm": 1, "partitions": 5}
    rate = 18.0 if shape is Shape.PER_KEY else 33.0
    grows = shape is Shape.OUTGROWS and turn % 4 == 3  # and needs a bigger topic
    bystander = tuple(Bystander)[turn // 2 % len(Bystander)]
    if bystander is Bystander.DOES_NOT_FOLLOW:
        policy["consumers"] = {"groups": [GROUP, BYSTANDER]}
    again_at = 62.0 if turn % 3 else 84.0  # while nike's topic is on its way back, or idle
    return Scenario(
        shape=shape,
        bystander=bystander,
        partitions=4,
        more_partitions=5,
        policy=policy,
        hot=(
            Heat(HOT_AT, 34.0, NIKE, rate),
            Heat(34.0, 56.0, NIKE, 2 * rate if grows else rate),
            Heat(again_at, 1e9, ADIDAS, rate),
        ),
        quiet=_quiet(12, 0.45),
        seasons=(Season(3.0, 30.0, 2, 8), Season(57.0, 72.0, 0, 4)),
        looks=(Look(56.0, (NIKE,)), Look(118.0, (ADIDAS,))),
        in_order_at=22.0,
        thaw_at=92.0,
    )
