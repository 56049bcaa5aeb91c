"""Dedicated topics: what becomes of each by what was observed, as a table of transitions with rules above it.

    (nothing) -> PREPARE -> ACTIVE -> RETURN -> IDLE -> PREPARE -> ...
                   ^------------------/ for the same key

The rules, of which each row below is one case:

1. In doubt, base: only a topic in ACTIVE is written, and whatever speaks against it ends that at once.
2. A topic becomes ACTIVE only from PREPARE, when the table that lists it is what clients read already, and
   every registered group has committed an offset on each of its partitions; a group that reads the base topic
   and is neither registered nor ignored stops it too, and so do records that a group has not read yet.
   There is no time-out. A listed group that surely reads it no more ends that it is written.
3. A name is recorded before its topic exists, and only what this very operator was told that it made is taken
   for ours. A topic of that name with an id that is not recorded is a stranger's, as is one whose id changed:
   it is forgotten, and the next one gets a new name.
4. A topic that keeps records less safely than the base topic is not written.
5. Nothing is ever deleted. What is forgotten stays in the read set for as long as it exists.
6. What could not be learned changes nothing.

Phases are durable: they stand in the RoutingTable object. It knows no client, no clock and no heat: which
keys need a topic is told by `own_topic.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hotkey_operator.engine.model import Committed, DedicatedSeen, TopicConfig, TopicSeen
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import REPORT_SECONDS
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.topic_readers import CAUGHT_UP
from hotkey_operator.engine.wording import count
from hotkey_sdk.routing.report import ClientReport, Role
from hotkey_sdk.routing.table import DedicatedTopic, Phase

NAMES_TOLD = 3
PARTITIONS_TOLD = 5


class Event(StrEnum):
    """What a turn saw of one topic."""

    UNSEEN = "nothing was learned of it"
    ABSENT = "it does not exist, and no id of it was ever recorded"
    MADE = "it exists with the id that this operator was told when it made it"
    GONE = "it does not exist any more"
    STRANGE = "a topic of that name exists with an id that is not recorded"
    WEAKER = "it is ours, and keeps records less safely than the base topic"
    OURS = "it is ours, and not every group is known to read it"
    READY = "it is ours, clients have its name, and every group reads each of its partitions"
    STOCKED = "it is ours, and no key waits for it"
    UNWANTED = "it is ours, and its key does not need it any more"
    WITHDRAWN = "nobody needs it any more, and no id of it was ever recorded"
    UNREAD = "it is ours, and a group that the policy lists does not read it"
    QUIET = "it is ours, clients were told to write to base, and nothing was written to it since"
    CLAIMED = "it is ours, and a key that it fits needs it"


class Effect(StrEnum):
    """What is to be done beside writing the phase."""

    CREATE = "make the topic"
    RECORD = "record its id"


@dataclass(frozen=True, slots=True)
class Move:
    """The next phase, None: the topic is forgotten; and what else is to be done."""

    to: Phase | None
    effect: Effect | None = None


_FORGOTTEN = Move(None)
_PREPARE, _ACTIVE, _RETURN, _IDLE = (Move(phase) for phase in Phase)

TRANSITIONS: Mapping[tuple[Phase, Event], Move] = {
    (Phase.PREPARE, Event.UNSEEN): _PREPARE,
    (Phase.PREPARE, Event.ABSENT): Move(Phase.PREPARE, Effect.CREATE),
    (Phase.PREPARE, Event.MADE): Move(Phase.PREPARE, Effect.RECORD),
    (Phase.PREPARE, Event.GONE): _FORGOTTEN,
    (Phase.PREPARE, Event.STRANGE): _FORGOTTEN,
    (Phase.PREPARE, Event.WEAKER): _IDLE,
    (Phase.PREPARE, Event.OURS): _PREPARE,
    (Phase.PREPARE, Event.READY): _ACTIVE,
    (Phase.PREPARE, Event.STOCKED): _IDLE,
    (Phase.PREPARE, Event.UNWANTED): _IDLE,
    (Phase.PREPARE, Event.WITHDRAWN): _FORGOTTEN,
    (Phase.ACTIVE, Event.UNSEEN): _ACTIVE,
    (Phase.ACTIVE, Event.GONE): _RETURN,
    (Phase.ACTIVE, Event.STRANGE): _RETURN,
    (Phase.ACTIVE, Event.WEAKER): _RETURN,
    (Phase.ACTIVE, Event.OURS): _ACTIVE,
    (Phase.ACTIVE, Event.UNREAD): _RETURN,
    (Phase.ACTIVE, Event.UNWANTED): _RETURN,
    (Phase.RETURN, Event.UNSEEN): _RETURN,
    (Phase.RETURN, Event.GONE): _FORGOTTEN,
    (Phase.RETURN, Event.STRANGE): _FORGOTTEN,
    (Phase.RETURN, Event.OURS): _RETURN,
    (Phase.RETURN, Event.QUIET): _IDLE,
    (Phase.RETURN, Event.CLAIMED): _PREPARE,
    (Phase.IDLE, Event.UNSEEN): _IDLE,
    (Phase.IDLE, Event.GONE): _FORGOTTEN,
    (Phase.IDLE, Event.STRANGE): _FORGOTTEN,
    (Phase.IDLE, Event.WEAKER): _IDLE,
    (Phase.IDLE, Event.OURS): _IDLE,
    (Phase.IDLE, Event.CLAIMED): _PREPARE,
}


@dataclass(frozen=True, slots=True)
class Known:
    """What a turn knows of one topic beside its entry in the table.

    `seen` None: there is none, or nothing was learned (`answered` False). `made`: the id that this process
    was told when it made it. `weaker`: in what it is weaker than the base topic. `wanted`: its key, or the
    policy's stock, needs it; `claimed`: a key takes it. `read`: every group reads it and clients have its
    name. `quiet`: nothing was written to it since clients were told to write to base. `unread`: which listed
    group surely does not read it, in words.
    """

    answered: bool = False
    seen: TopicSeen | None = None
    made: str = ""
    weaker: tuple[str, ...] = ()
    wanted: bool = False
    claimed: bool = False
    read: bool = False
    quiet: bool = False
    unread: str = ""


def event(topic: DedicatedTopic, known: Known) -> Event:
    """Which row applies: what is wrong with a topic comes before what anybody wants of it."""
    if topic.phase is Phase.PREPARE and not topic.topic_id:
        return _unborn(known)
    if topic.phase is Phase.ACTIVE and not known.wanted:
        return Event.UNWANTED
    if not known.answered:
        return Event.UNSEEN
    if known.seen is None:
        return Event.GONE
    if known.seen.topic_id != topic.topic_id or known.seen.partitions < topic.partitions:
        return Event.STRANGE
    if known.weaker and topic.phase is not Phase.RETURN:
        return Event.WEAKER
    return _sound(topic, known)


def _unborn(known: Known) -> Event:
    if known.answered and known.seen is not None:
        is_ours = bool(known.made) and known.made == known.seen.topic_id
        return Event.MADE if is_ours else Event.STRANGE
    if not known.wanted:
        return Event.WITHDRAWN
    if not known.answered:
        return Event.UNSEEN
    return Event.GONE if known.made else Event.ABSENT


def _sound(topic: DedicatedTopic, known: Known) -> Event:
    match topic.phase:
        case Phase.PREPARE if topic.key is None:
            return Event.STOCKED
        case Phase.PREPARE if not known.wanted:
            return Event.UNWANTED
        case Phase.PREPARE if known.read:
            return Event.READY
        case Phase.ACTIVE if known.unread:
            return Event.UNREAD
        case Phase.RETURN if known.quiet and not known.claimed:
            return Event.QUIET
        case Phase.IDLE | Phase.RETURN if known.claimed:
            return Event.CLAIMED
    return Event.OURS


def move(topic: DedicatedTopic, known: Known) -> tuple[Event, Move]:
    """What was seen of the topic, and what becomes of it."""
    seen = event(topic, known)
    return seen, TRANSITIONS[topic.phase, seen]


def why_back(seen: Event, known: Known, where: str) -> tuple[Reason, str]:
    """Why a key's records go back to the base topic, for people."""
    match seen:
        case Event.UNREAD:
            return Reason.CONSUMERS_NOT_READING, f"{where}: {known.unread}"
        case Event.GONE:
            return Reason.TOPIC_REPLACED, f"{where} does not exist any more"
        case Event.STRANGE:
            return Reason.TOPIC_REPLACED, f"{where} was made anew by somebody else"
        case Event.WEAKER:
            return Reason.WEAKER_THAN_BASE, f"{where}: {'; '.join(known.weaker)}"
    return Reason.RETURNED_TO_BASE, "it needs no topic of its own any more"


def weaker(seen: TopicConfig, base: TopicConfig) -> tuple[str, ...]:
    """In what a topic keeps records less safely than the base topic, in words for people."""
    least = {
        "replication factor": (seen.replication, base.replication),
        "min.insync.replicas": (seen.min_insync, base.min_insync),
        "retention.ms": (_unbounded(seen.retention_ms), _unbounded(base.retention_ms)),
        "retention.bytes": (_unbounded(seen.retention_bytes), _unbounded(base.retention_bytes)),
        "max.message.bytes": (seen.max_message_bytes, base.max_message_bytes),
    }
    found = [f"{what} is {has}, {needs} needed" for what, (has, needs) in least.items() if has < needs]
    if seen.timestamp_type != base.timestamp_type:
        found.append(f"message.timestamp.type is {seen.timestamp_type}, not {base.timestamp_type}")
    if seen.unclean_election and not base.unclean_election:
        found.append("unclean.leader.election.enable is true")
    return tuple(found)


def like(base: TopicConfig, base_partitions: int, partitions: int) -> TopicConfig:
    """The configuration of a new topic: the base topic's, with as many bytes kept in all partitions together.

    `retention.bytes` counts for one partition, so fewer partitions need more of it each.
    """
    if base.retention_bytes < 0 or partitions >= base_partitions:
        return base
    scaled = math.ceil(base.retention_bytes * base_partitions / partitions)
    return TopicConfig(
        base.replication,
        base.min_insync,
        base.retention_ms,
        scaled,
        base.timestamp_type,
        base.unclean_election,
        base.max_message_bytes,
    )


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a topic that is there is not written yet."""

    reason: Reason
    message: str


def registered(spec: PolicySpec, reports: Iterable[ClientReport], at: float) -> tuple[str, ...]:
    """The groups that must read a topic before it is written: those of `consumers.groups`, and those that SDK
    consumers report beside them. None where the policy lists none: reports add, they never replace."""
    if not spec.consumer_groups:
        return ()
    reported = {
        report.group
        for report in reports
        if report.group and report.role is Role.CONSUMER and abs(at - report.at) <= REPORT_SECONDS
    }
    added = sorted(reported - {*spec.consumer_groups, *spec.ignored_groups})
    return (*spec.consumer_groups, *added)


def readers(
    topic: DedicatedTopic, seen: DedicatedSeen, registered: Sequence[str], ignored: Sequence[str]
) -> Blocked | None:
    """Which groups keep the topic from being written; None: all that read the base topic read it.

    `registered`: those of `consumers.groups` and those that SDK consumers report. A group that could not be
    asked counts as one that does not read. What waits in a topic that was used before must be read first:
    offsets of long ago may be of a group that reads the base topic alone by now.
    """
    groups = {each.group: each for each in seen.groups.get(topic.name, ())}
    failed = [each.failure for each in seen.on_base or () if each.failure and each.group not in ignored]
    if seen.on_base is None or failed:
        why = failed[0] if failed else seen.failure or "they were not asked yet"
        return Blocked(
            Reason.GROUPS_NOT_KNOWN, f"which consumer groups read the base topic is not known: {why}"
        )
    strangers = sorted(
        each.group
        for each in seen.on_base
        if each.offsets and each.group not in registered and each.group not in ignored
    )
    if strangers or not registered:
        return Blocked(Reason.UNREGISTERED_GROUP, _unregistered(strangers))
    lacking = {group: _missing(topic, groups.get(group)) for group in registered}
    lacking = {group: missing for group, missing in lacking.items() if missing}
    if not lacking:
        return _behind(topic, seen.ends.get(topic.name), [groups[group] for group in registered])
    told = [f"{group} on {_partitions(topic, missing)}" for group, missing in sorted(lacking.items())]
    return Blocked(
        Reason.CONSUMERS_NOT_READING,
        f"{_bound(topic)} every group has committed an offset on each of its partitions; "
        f"missing: {_some(told)}",
    )


def _bound(topic: DedicatedTopic) -> str:
    if topic.phase is Phase.ACTIVE:
        return f"topic {topic.name} is written, and should be only while"
    return f"topic {topic.name} is not written before"


def _behind(topic: DedicatedTopic, end: int | None, groups: Iterable[Committed]) -> Blocked | None:
    if end is None:
        return Blocked(Reason.KAFKA_UNAVAILABLE, f"the end offsets of topic {topic.name} cannot be read")
    waits = {each.group: end - sum(each.offsets.values()) for each in groups}
    told = [f"{group}: {left:,} records" for group, left in sorted(waits.items()) if left > CAUGHT_UP]
    if not told:
        return None
    return Blocked(
        Reason.CONSUMERS_NOT_READING,
        f"{_bound(topic)} every group has read what it holds from before; still to read: {_some(told)}",
    )


def _missing(topic: DedicatedTopic, committed: Committed | None) -> list[int]:
    offsets = committed.offsets if committed is not None and committed.failure is None else {}
    return [partition for partition in range(topic.partitions) if partition not in offsets]


def _partitions(topic: DedicatedTopic, missing: Sequence[int]) -> str:
    if len(missing) == topic.partitions:
        return f"all {count(topic.partitions, 'partition')}" if topic.partitions > 1 else "its partition"
    shown = ", ".join(str(partition) for partition in missing[:PARTITIONS_TOLD])
    more = f" and {len(missing) - PARTITIONS_TOLD} more" if len(missing) > PARTITIONS_TOLD else ""
    return f"partitions {shown}{more}"


def _unregistered(strangers: Sequence[str]) -> str:
    if not strangers:
        return (
            "no consumer group is registered: list those that read the topic in consumers.groups, so that "
            "nothing is written where nobody reads"
        )
    return (
        f"{_some(strangers)} committed offsets on the base topic and the policy does not name it: add it to "
        "consumers.groups, or to consumers.ignore where it may miss records"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_TOLD])
    return shown + (f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else "")


def _unbounded(bound: int) -> float:
    """Kafka writes no bound as -1."""
    return math.inf if bound < 0 else bound
