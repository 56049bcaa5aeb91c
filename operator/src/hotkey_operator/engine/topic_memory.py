"""What a turn remembers of dedicated topics for the next. Nothing in it is needed for safety.

A restart forgets what was made and not recorded yet: such a topic is then a stranger's, and stays unwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hotkey_operator.engine.model import DedicatedSeen, TopicAttempt
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.topic_readers import Readers
from hotkey_sdk.routing.table import Table

KEPT_SECONDS = 30.0  # of totals
RATE_SECONDS = 10.0  # that a rate is measured over
QUIET_SECONDS = 10.0  # without a record, and a topic counts as left by its writers
SETTLING_SECONDS = 10.0  # brokers learn of a new topic one after another
UNMEASURED_SECONDS = 10.0  # that a topic is left alone whose end offsets took too long
LOOK_SECONDS = 30.0  # between two looks at the names of all topics
RETRY_AT_MOST_SECONDS = 60.0
SHUNNED_SECONDS = 600.0  # and twice as long each further time
SHUNNED_AT_MOST_SECONDS = 6 * 3_600.0
STRANGE_SECONDS = 5.0  # another operator may be about to record the topic that it made


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failed attempt to make a topic, whatever its name; `times`: in a row."""

    at: float
    times: int
    reason: Reason
    problem: str


@dataclass(frozen=True, slots=True)
class TopicMemory:
    """All times are unix seconds. By name of topic: `made`, the id it got from this process and when;
    `totals`, readings of the sum of its end offsets, oldest first; `strange_since`, when a topic
    with an unrecorded id was first seen. By key: `wanted_since`, when it first needed a topic of its own;
    `cool_since`, when it first needed none any more. `alike`: topics that are named like ours, as last listed
    at `listed_at`. `failure`: of the last attempt to make one. `readers`: who reads those that are written.
    `unmeasured`: by name, when its end offsets were too slow to be read. `shunned`: keys that producers did
    not write to their topic, since when and how often.
    """

    made: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    totals: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)
    strange_since: Mapping[str, float] = field(default_factory=dict)
    wanted_since: Mapping[bytes, float] = field(default_factory=dict)
    cool_since: Mapping[bytes, float] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    listed_at: float = float("-inf")
    failure: Failure | None = None
    readers: Readers = field(default_factory=Readers)
    unmeasured: Mapping[str, float] = field(default_factory=dict)
    shunned: Mapping[bytes, tuple[float, int]] = field(default_factory=dict)

    def is_shunned(self, key: bytes, at: float) -> bool:
        """Whether it is too early for a topic of a key whose producers did not write to the last one."""
        since, times = self.shunned.get(key, (float("-inf"), 0))
        return within(at, since, min(SHUNNED_AT_MOST_SECONDS, SHUNNED_SECONDS * 2.0 ** (times - 1)))

    def shunning(self, key: bytes, at: float) -> TopicMemory:
        """The memory with a key whose producers do not write to its topic, once more."""
        if self.is_shunned(key, at):
            return self
        times = min(self.shunned[key][1] + 1, 10) if key in self.shunned else 1
        return replace(self, shunned={**self.shunned, key: (at, times)})

    def is_unmeasured(self, name: str, at: float) -> bool:
        """Whether its end offsets took too long just now, so that they are not asked for."""
        return name in self.unmeasured and within(at, self.unmeasured[name], UNMEASURED_SECONDS)

    def lists_names(self, at: float) -> bool:
        """Whether the names of all topics are to be looked at again."""
        return not within(at, self.listed_at, LOOK_SECONDS)

    def made_id(self, name: str) -> str:
        return self.made[name][0] if name in self.made else ""

    def is_settling(self, name: str, at: float) -> bool:
        """Whether it was made so lately that not every broker need know it."""
        return name in self.made and within(at, self.made[name][1], SETTLING_SECONDS)

    def may_try(self, at: float) -> bool:
        """Whether it is time for another attempt to make one: after 2, 4, 8 seconds and so on."""
        failure = self.failure
        pause = min(RETRY_AT_MOST_SECONDS, 2.0 ** min(failure.times, 10)) if failure else 0.0
        return failure is None or not within(at, failure.at, pause)

    def rate(self, name: str) -> float | None:
        """Records/s that were written to it of late; None while nothing is measured."""
        readings = self.totals.get(name, ())
        if len(readings) < 2:
            return None
        at, total = readings[-1]
        since, first = next(each for each in readings if at - each[0] <= RATE_SECONDS)
        return (total - first) / (at - since) if at > since else None

    def is_quiet(self, name: str) -> bool:
        """Whether nothing was written to it for `QUIET_SECONDS`."""
        readings = self.totals.get(name, ())
        same = [at for at, total in readings if total == readings[-1][1]]
        return bool(same) and same[-1] - same[0] >= QUIET_SECONDS


def seen(memory: TopicMemory, observation: DedicatedSeen | None, at: float) -> TopicMemory:
    """The memory with what a turn learned."""
    if observation is None:
        return memory
    totals = {
        name: (
            *(each for each in memory.totals.get(name, ()) if within(at, each[0], KEPT_SECONDS)),
            (at, total),
        )
        for name, total in observation.totals.items()
    }
    failed = {name: since for name, since in memory.unmeasured.items() if memory.is_unmeasured(name, at)}
    memory = replace(
        memory,
        totals={**_kept(memory.totals, observation, at), **totals},
        unmeasured={**failed, **dict.fromkeys(observation.unmeasured, at)},
    )
    if observation.alike is None:
        return memory
    return replace(memory, alike=observation.alike, listed_at=at)


def _kept(
    totals: Mapping[str, tuple[tuple[float, int], ...]], observation: DedicatedSeen, at: float
) -> dict[str, tuple[tuple[float, int], ...]]:
    """What was not read this time stays for a while; a topic that does not exist has no past."""
    gone = {name for name, topic in observation.topics.items() if topic is None}
    return {
        name: readings
        for name, readings in totals.items()
        if name not in gone and within(at, readings[-1][0], KEPT_SECONDS)
    }


def unlisted(table: Table, alike: Iterable[str]) -> list[str]:
    """The topics that are named like ours and stand in no phase."""
    listed = {topic.name for topic in table.topics}
    return sorted(each for each in alike if each not in listed)


def attempted(memory: TopicMemory, attempts: Iterable[TopicAttempt], at: float) -> TopicMemory:
    """The memory with what became of attempts to make topics."""
    made, failure = dict(memory.made), memory.failure
    for attempt in attempts:
        if attempt.reason is not None:
            failure = Failure(at, failure.times + 1 if failure else 1, attempt.reason, attempt.problem)
        elif attempt.topic_id:
            made[attempt.name], failure = (attempt.topic_id, at), None
    return replace(memory, made=made, failure=failure)
