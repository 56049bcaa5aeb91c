"""Who reads the dedicated topics that are written: what was last learned, and for how long a group does not.

A group may be registered, start, or lose its offsets while a topic is written. It must not know what becomes
of such a topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hotkey_operator.engine.model import Committed, DedicatedSeen
from hotkey_operator.engine.recency import within
from hotkey_sdk.routing.table import DedicatedTopic, Phase

ASK_SECONDS = 5.0  # between two looks at who reads the topics that are written
FAILED_SECONDS = 5.0  # after groups could not be asked: that may take seconds of a turn
MISSING_SECONDS = 10.0  # without a committed offset on each partition; a coordinator may not tell all at once
STUCK_SECONDS = 60.0  # without a commit on the topic, while those on the base topic go on
CAUGHT_UP = 1_000  # records: a log ends with markers and aborted records that some clients commit nothing of


@dataclass(frozen=True, slots=True)
class Following:
    """How one group follows one topic. `since`: when it was last seen to get on, or had nothing to read.

    `done` and `base`: the sums of what it has committed there and on the base topic; `base_at`: when that
    last changed. `missing_since`: without an offset on some partition. `waits`: records it has not read.
    """

    since: float
    done: int
    base: int
    base_at: float
    missing_since: float | None
    waits: int


@dataclass(frozen=True, slots=True)
class Readers:
    """`groups` and `on_base`: as they were last told of topics that are written. `failed`: what groups were
    told of when some could not be asked, at `failed_at`. `following`: by name of topic and group."""

    asked_at: float = float("-inf")
    groups: Mapping[str, tuple[Committed, ...]] = field(default_factory=dict)
    on_base: tuple[Committed, ...] | None = None
    failed: tuple[Committed, ...] = ()
    failed_at: float = float("-inf")
    following: Mapping[tuple[str, str], Following] = field(default_factory=dict)

    def is_due(self, at: float) -> bool:
        """Whether it is time to ask who reads the topics that are written."""
        return not within(at, self.asked_at, ASK_SECONDS)

    def rests(self, at: float) -> bool:
        """Whether groups could not be asked just now, so that they are left alone for a while."""
        return within(at, self.failed_at, FAILED_SECONDS)


def seen(
    before: Readers, topics: Iterable[DedicatedTopic], found: DedicatedSeen | None, at: float
) -> Readers:
    """What is known after a turn that learned `found` at `at` (unix seconds)."""
    if found is None or found.on_base is None:
        return before
    if not before.rests(at):
        failed = any(each.failure is not None for each in found.on_base)
        before = replace(before, failed=found.on_base, failed_at=at if failed else float("-inf"))
    if found.listed_on_base is None:
        return before
    base = {each.group: sum(each.offsets.values()) for each in found.listed_on_base if each.failure is None}
    following = {
        (topic.name, each.group): _followed(before, topic, each, base.get(each.group), found, at)
        for topic in topics
        if topic.phase is Phase.ACTIVE
        for each in found.groups.get(topic.name, ())
        if each.failure is None
    }
    kept = {name: each for name, each in before.following.items() if _is_unsaid(name, found)}
    return replace(
        before, asked_at=at, groups=found.groups, on_base=found.on_base, following={**kept, **following}
    )


def _is_unsaid(name: tuple[str, str], found: DedicatedSeen) -> bool:
    """Whether the group could not be asked of the topic, so that what was known of it stands."""
    topic, group = name
    return any(each.group == group and each.failure is not None for each in found.groups.get(topic, ()))


def _followed(
    readers: Readers,
    topic: DedicatedTopic,
    committed: Committed,
    base: int | None,
    found: DedicatedSeen,
    at: float,
) -> Following:
    before = readers.following.get((topic.name, committed.group))
    done = sum(committed.offsets.values())
    waits = max(0, found.totals.get(topic.name, 0) - done)
    lacks = any(partition not in committed.offsets for partition in range(topic.partitions))
    if before is None:
        return Following(at, done, base or 0, at, at if lacks else None, waits)
    gets_on = done != before.done or waits <= CAUGHT_UP
    moved = base is not None and base > before.base
    known = before.missing_since if before.missing_since is not None else at
    return Following(
        since=at if gets_on else min(before.since, at),
        done=done,
        base=before.base if base is None else base,
        base_at=at if moved else min(before.base_at, at),
        missing_since=min(known, at) if lacks else None,
        waits=waits,
    )


def unread(readers: Readers, topic: DedicatedTopic, listed: Sequence[str], at: float) -> str:
    """Which of the policy's groups surely does not read a topic that is written, in words; empty: none."""
    for group in listed:
        following = readers.following.get((topic.name, group))
        if following is None:
            continue
        missing, stuck = following.missing_since, following.base_at - following.since
        if missing is not None and at - missing >= MISSING_SECONDS:
            return f"group {group} has no committed offset on each of its partitions"
        if at - following.since >= STUCK_SECONDS and stuck >= STUCK_SECONDS / 2:
            return (
                f"group {group} reads the base topic and has read nothing of it for {STUCK_SECONDS:g} s, "
                f"while {following.waits:,} records wait"
            )
    return ""
