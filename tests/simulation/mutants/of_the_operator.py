"""Mutants of what the operator decides and does: read sets, groups, names, how topics are kept, epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec

from hotkey_operator.act import executor
from hotkey_operator.engine import dedicated, dedication, truth
from hotkey_operator.engine.dedicated import Blocked, Known
from hotkey_operator.engine.model import (
    CreateTopic,
    Decision,
    DedicatedSeen,
    Observation,
    TopicConfig,
    TopicSeen,
)
from hotkey_operator.engine.own_topic import Want
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing import codec, names
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.report import ClientReport
from hotkey_sdk.routing.table import DedicatedTopic, Table
from tests.simulation.faults import Kind
from tests.simulation.mutants.mutant import Mutant, On, Patch, all_of, everywhere, method, returning, said

LOOP = "tests/unit/operator/test_dedication.py"
LOSSES = "tests/unit/operator/test_dedication_losses.py"
RULES = "tests/unit/engine/test_dedicated.py"
HASTE_SECONDS = 8.0  # after which the mutant that waits for no group writes all the same

_Step = dedication._Step


def base_left_out() -> Patch:
    """The codec would refuse such a table, so that its check of the base topic is switched off as well."""
    read_set, check = _Step._read_set, codec._check

    def without_base(step: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = read_set(step)
        return found[1:] or found

    def lenient(table: Table) -> None:
        base = table.stream.topic
        there = base in table.read_set
        check(table if there else msgspec.structs.replace(table, read_set=(base, *table.read_set)))

    return all_of(method(_Step, "_read_set", without_base), patch.object(codec, "_check", lenient))


def read_set_forgets() -> Patch:
    def only_listed(step: Any) -> tuple[str, ...]:
        return (step.table.stream.topic, *(topic.name for topic in step.topics))

    return method(_Step, "_read_set", only_listed)


def written_unpublished() -> Patch:
    return method(_Step, "_is_published", returning(True))


def unread() -> Patch:
    return everywhere(dedicated.readers, returning(None))


def unlisted_ignored() -> Patch:
    readers = dedicated.readers

    def of_the_listed(
        topic: DedicatedTopic, seen: DedicatedSeen, registered: Sequence[str], ignored: Sequence[str]
    ) -> Blocked | None:
        others = [each.group for each in seen.on_base or ()]
        return readers(topic, seen, registered, [*ignored, *others])

    return everywhere(dedicated.readers, of_the_listed)


def reports_replace() -> Patch:
    registered = dedicated.registered

    def reported(spec: PolicySpec, reports: Iterable[ClientReport], at: float) -> tuple[str, ...]:
        found = registered(spec, reports, at)
        added = tuple(group for group in found if group not in spec.consumer_groups)
        return added or found[:1]

    return everywhere(dedicated.registered, reported)


def out_of_patience() -> Patch:
    blocked = _Step._blocked

    def for_a_while(step: Any, topic: DedicatedTopic) -> Blocked | None:
        made = step.memory.made.get(topic.name)
        patient = made is None or within(step.observation.at, made[1], HASTE_SECONDS)
        return blocked(step, topic) if patient else None

    return method(_Step, "_blocked", for_a_while)


def made_before_recorded() -> Patch:
    """The topic is made in the turn that gives it its name, before the object is written."""
    named, apply = _Step._named, executor.apply

    def and_made(step: Any, partitions: int, key: bytes | None) -> DedicatedTopic:
        topic: DedicatedTopic = named(step, partitions, key)
        if (config := step._needed(partitions)) is not None:
            step.actions.append(CreateTopic(topic.name, partitions, config))
        return topic

    async def topics_first(ports: Any, ref: Any, decision: Decision, **named: Any) -> executor.Applied:
        actions = sorted(decision.actions, key=lambda action: not isinstance(action, CreateTopic))
        return await apply(ports, ref, replace(decision, actions=tuple(actions)), **named)

    return all_of(method(_Step, "_named", and_made), everywhere(apply, topics_first))


def name_reused() -> Patch:
    def same_for_all(topic: str, policy_uid: str, epoch: int) -> str:
        return f"{dedicated_prefix(topic)}{policy_uid[:8]}.g1"

    return everywhere(names.dedicated_name, same_for_all)


def stranger_adopted() -> Patch:
    """Whatever has a recorded name is taken for ours, whichever id and partitions it has."""
    known = _Step._known

    def believing(step: Any, topic: DedicatedTopic) -> Known:
        found: Known = known(step, topic)
        if found.seen is None:
            return found
        if not topic.topic_id:
            return replace(found, made=found.seen.topic_id)
        return replace(found, seen=TopicSeen(topic.topic_id, topic.partitions, found.seen.config))

    return method(_Step, "_known", believing)


def weaker_made() -> Patch:
    def least(base: TopicConfig, base_partitions: int, partitions: int) -> TopicConfig:
        return replace(base, replication=1, min_insync=1, retention_ms=60_000, unclean_election=True)

    return all_of(everywhere(dedicated.like, least), everywhere(dedicated.weaker, returning(())))


def two_at_once() -> Patch:
    def first(step: Any) -> Want | None:
        return next(iter(step.wanted), None)

    return method(_Step, "_next", first)


def rebuilt_below() -> Patch:
    """Without an object only the clients' clock-less guess is left: it begins at 1 again."""
    next_epoch = truth.next_epoch

    def from_the_object(observation: Observation) -> int:
        stored = observation.stored
        if stored is not None:
            return stored.table.epoch + 1
        return 1 if observation.published.table is not None else next_epoch(observation)

    return everywhere(next_epoch, from_the_object)


MUTANTS = (
    Mutant(
        "base-left-out-of-read-set",
        1,
        "the table's read set holds the dedicated topics alone, and readers take it",
        f"{LOOP}::test_a_key_that_fits_nowhere_gets_its_own_topic_goes_back_and_the_next_key_has_it",
        base_left_out,
        seeded=said("the base topic is not in the read set", on=On.DEDICATED),
    ),
    Mutant(
        "read-set-shrinks",
        1,
        "a topic that was forgotten, though it exists, leaves the read set",
        f"{LOOP}::test_a_topic_that_a_person_made_anew_is_left_at_once_and_never_written_again",
        read_set_forgets,
        seeded=said("no consumer is told to read", on=On.DEDICATED),
    ),
    Mutant(
        "written-before-published",
        1,
        "a topic is written though Redis does not hold the table that tells clients to read it",
        f"{LOSSES}::test_a_topic_is_not_written_while_redis_does_not_hold_the_table_that_lists_it",
        written_unpublished,
        unseen="a group commits on a topic only after a published table told it to: 2 holds it up as well",
    ),
    Mutant(
        "written-before-consumers-read",
        2,
        "a topic is written though registered groups have committed nothing on it",
        f"{LOOP}::test_a_group_that_does_not_follow_keeps_the_key_at_its_rung_and_is_named",
        unread,
        seeded=said("does not read", on=On.DEDICATED),
    ),
    Mutant(
        "unlisted-group-ignored",
        2,
        "a group that reads the base topic and that the policy does not name holds nothing up",
        f"{LOOP}::test_a_group_that_the_policy_does_not_name_blocks_until_it_is_ignored",
        unlisted_ignored,
        seeded=said("does not read", on=On.UNLISTED),
    ),
    Mutant(
        "reports-replace-listed-groups",
        2,
        "only the groups that SDK consumers report have to read a topic, not all that are listed",
        f"{RULES}::test_reports_add_groups_and_never_replace_those_that_are_listed",
        reports_replace,
        seeded=said("is still in Prepare", on=On.NOT_FOLLOWING),
    ),
    Mutant(
        "time-out-into-loss",
        2,
        f"after {HASTE_SECONDS:.0f} s nobody waits for a group that does not follow",
        f"{LOOP}::test_a_group_that_does_not_follow_keeps_the_key_at_its_rung_and_is_named",
        out_of_patience,
        seeded=said("does not read", on=On.NOT_FOLLOWING),
    ),
    Mutant(
        "made-before-recorded",
        3,
        "a topic is made before the object holds its name",
        f"{LOOP}::test_a_topic_is_made_only_after_the_object_lists_it",
        made_before_recorded,
        seeded=said("was made before the object had its name", on=On.DEDICATED),
    ),
    Mutant(
        "name-reused",
        3,
        "every dedicated topic of a stream gets the same name, also after a person deleted the last one",
        f"{LOOP}::test_a_key_that_fits_nowhere_gets_its_own_topic_goes_back_and_the_next_key_has_it",
        name_reused,
        seeded=said("a second time", on=On.DEDICATED, only=(Kind.TOPIC_DELETED, Kind.TOPIC_ANEW)),
    ),
    Mutant(
        "stranger-adopted",
        3,
        "a topic of a recorded name is ours whatever its id, also when a person made it anew",
        f"{LOOP}::test_a_topic_that_a_person_made_anew_is_left_at_once_and_never_written_again",
        stranger_adopted,
        seeded=said("is another topic of that name", on=On.DEDICATED, only=(Kind.TOPIC_ANEW,)),
    ),
    Mutant(
        "weaker-than-base",
        4,
        "a dedicated topic is made with one replica and a minute's retention, and nobody looks",
        f"{LOOP}::test_a_topic_that_became_weaker_than_the_base_topic_is_left",
        weaker_made,
        seeded=said("is weaker than the base topic", on=On.DEDICATED),
    ),
    Mutant(
        "two-transitions-at-once",
        8,
        "a key whose topic is in preparation is given another one",
        f"{LOOP}::test_a_key_that_fits_nowhere_gets_its_own_topic_goes_back_and_the_next_key_has_it",
        two_at_once,
        seeded=said("in two transitions at once", on=On.DEDICATED),
    ),
    Mutant(
        "rebuilt-without-redis-epoch",
        8,
        "an object that was lost is rebuilt under an epoch that does not look at the one in Redis",
        "tests/unit/engine/test_truth.py::test_a_lost_object_is_rebuilt_from_the_published_table",
        rebuilt_below,
        seeded=said("the object holds", "Redis does not hold", only=(Kind.OBJECT_LOST,)),
    ),
)
