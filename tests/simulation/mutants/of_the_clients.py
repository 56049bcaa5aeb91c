"""Mutants of producers and consumers: topics made by asking, durability, re-sending, epochs, shards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from hotkey_sdk import _settings
from hotkey_sdk._consumer import Consumer
from hotkey_sdk.routing import slots
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.resend import Fate, Queue, Resends, Way
from hotkey_sdk.routing.router import RoutePlan
from hotkey_sdk.routing.slots import Value
from hotkey_sdk.routing.table import Table
from tests.simulation.faults import Kind
from tests.simulation.mutants.mutant import Mutant, On, Patch, everywhere, method, returning, said
from tests.simulation.parts import REAL

SETTINGS = "tests/unit/sdk/test_settings.py"
RESEND = "tests/unit/sdk/test_resend.py"


def creating() -> Patch:
    """The SDK lets the Kafka client ask for topics that are not there."""
    return everywhere(_settings._no_topic_creation, returning({"allow.auto.create.topics": True}))


def from_the_end() -> Patch:
    """A new partition is begun where `auto.offset.reset` says, and its start is committed nowhere."""

    def as_reset_says(consumer: Any, partitions: Any) -> bool:
        return False

    return method(Consumer, "_place", as_reset_says)


def not_idempotent() -> Patch:
    defaults = _settings.producer_defaults

    def weak(kafka: Mapping[str, Any]) -> dict[str, Any]:
        return {**defaults(kafka), "enable.idempotence": False, "acks": 1}

    return everywhere(defaults, weak)


def weak_is_durable() -> Patch:
    return everywhere(_settings.is_durable, returning(True))


def first_alone() -> Patch:
    """Of what a topic refused only the first record is sent again, and what waited behind it is let go."""
    line_up = Resends._line_up

    def first(book: Resends[Any], queue: Queue[Any]) -> None:
        line_up(book, queue)
        while len(queue.waiting) > 1:
            book._count(queue.waiting.pop(), -1)

    return method(Resends, "_line_up", first)


def waiting_first() -> Patch:
    """What was sent while others were refused goes to base before them."""

    def behind(book: Resends[Any], queue: Queue[Any]) -> None:
        queue.waiting.extend(record for _, record in queue.refused)
        queue.refused.clear()

    return method(Resends, "_line_up", behind)


def not_waiting() -> Patch:
    """Nothing waits for the fate of what is on its way: it goes to base at once, past that."""
    enter = Resends.enter

    def at_once(book: Resends[Any], queue: Queue[Any], now: float) -> tuple[Way, int]:
        way, number = enter(book, queue, now)
        return (Way.BASE, -1) if way is Way.WAIT else (way, number)

    return method(Resends, "enter", at_once)


def refusal_is_final() -> Patch:
    """A refused record ends where it was refused."""

    def dropped(
        book: Resends[Any], queue: Queue[Any], number: int, record: Any, fate: Fate, why: str, now: float
    ) -> bool:
        return book.ended(queue)

    return method(Resends, "refused", dropped)


def any_epoch() -> Patch:
    """The follower takes any table that is signed and of its stream."""
    weigh = Follower._weigh

    def forgetful(follower: Follower, table: Table, data: bytes, digest: str) -> Outcome:
        outcome = weigh(follower, table, data, digest)
        if outcome is not Outcome.OLDER:
            return outcome
        follower.router = None
        return weigh(follower, table, data, digest)

    return method(Follower, "_weigh", forgetful)


def choosing(next_slot: Callable[[], int]) -> Patch:
    return method(RoutePlan, "hashed", lambda plan, _: plan.at(next_slot()))


def random_shards() -> Patch:
    return choosing(_dice())


def _dice() -> Callable[[], int]:
    chance = random.Random(1)
    return lambda: chance.getrandbits(32)


def round_robin() -> Patch:
    return choosing(itertools.count().__next__)


def pythons_hash() -> Patch:
    """Each process has a seed of its own for it; here each call from another place stands for a process."""

    def unseeded(seed: int, values: Iterable[Value]) -> int:
        return hash(tuple(values))

    return everywhere(slots.slot_hash, unseeded)


MUTANTS = (
    Mutant(
        "clients-create-topics",
        5,
        "a client that asks for a topic that is not there makes it",
        "tests/unit/sdk/test_topic_creation.py"
        "::test_a_producer_with_settings_of_hotkey_does_not_create_a_missing_topic",
        creating,
        unseen="no client of the simulation could make a topic if it wanted to",
    ),
    Mutant(
        "latest-and-no-committed-start",
        5,
        "a consumer begins a new topic at its end and commits no start position",
        "tests/unit/sdk/test_consumer_start.py"
        "::test_a_topic_that_a_table_adds_is_read_from_its_start_even_where_the_reset_is_latest",
        from_the_end,
        replace(REAL, start=lambda _, end: end, commits_starts=False),
        seeded=said("are not counted", "are hot for long", on=On.DEDICATED),
    ),
    Mutant(
        "idempotence-off",
        6,
        "the SDK leaves idempotence off and waits for one replica, while leaders change",
        f"{SETTINGS}::test_a_producer_gets_javas_partitioner_and_idempotence_and_creates_no_topics",
        not_idempotent,
        replace(REAL, idempotent=False),
        seeded=said("stand after a later one", only=(Kind.LEADERS,)),
    ),
    Mutant(
        "weak-producer-leaves-base",
        6,
        "a producer that does not hear of every delivery writes to dedicated topics",
        "tests/unit/sdk/test_dedicated.py"
        "::test_a_producer_that_hears_of_errors_only_keeps_off_dedicated_topics",
        weak_is_durable,
        unseen="its producers are all durable: what is weak is told by settings alone",
    ),
    Mutant(
        "first-record-alone-re-sent",
        7,
        "of what a topic refused only the first record is sent again",
        f"{RESEND}::test_a_refused_record_and_all_behind_it_go_to_base_in_order",
        first_alone,
        seeded=said(
            "were told nothing",
            on=On.DEDICATED,
            only=(Kind.DENIED, Kind.TOPIC_DELETED),
        ),
    ),
    Mutant(
        "refused-record-dropped",
        7,
        "what a dedicated topic refuses is not sent again",
        f"{RESEND}::test_a_refused_record_and_all_behind_it_go_to_base_in_order",
        refusal_is_final,
        seeded=said(
            "were told nothing",
            on=On.DEDICATED,
            only=(Kind.DENIED, Kind.TOPIC_DELETED),
        ),
    ),
    Mutant(
        "re-sent-behind-the-later",
        7,
        "refused records go to base behind those that were sent after them",
        f"{RESEND}::test_new_records_wait_behind_what_was_refused",
        waiting_first,
        unseen="no seed that was tried so far shows it",
    ),
    Mutant(
        "overtaking-on-the-way-back",
        7,
        "a record goes to base while earlier ones are still to be refused",
        f"{RESEND}::test_new_records_wait_behind_what_was_refused",
        not_waiting,
        unseen="no seed that was tried so far shows it",
    ),
    Mutant(
        "lower-epoch-accepted",
        8,
        "a client takes a table of a lower epoch than its own",
        "tests/unit/sdk/test_follower.py::test_epochs_only_grow_in_whatever_order_tables_come",
        any_epoch,
        seeded=said("went from epoch", only=(Kind.REDIS_OLDER,)),
    ),
    Mutant(
        "random-shards",
        9,
        "where an order is asked for, chance chooses the shard",
        "tests/unit/sdk/test_router.py::test_the_same_values_go_the_same_way_with_every_key_type",
        random_shards,
        seeded=said("are not where earlier ones are"),
    ),
    Mutant(
        "shards-in-turn",
        9,
        "where an order is asked for, shards take turns",
        "tests/unit/sdk/test_router.py::test_the_same_values_go_the_same_way_with_every_key_type",
        round_robin,
        seeded=said("are not where earlier ones are"),
    ),
    Mutant(
        "pythons-hash",
        9,
        "the shard is Python's own hash of the values, another one in each process and language",
        "tests/contract/sdk/test_vectors.py::test_the_files_are_those_that_the_command_makes",
        pythons_hash,
        unseen="all its producers live in one process, where that hash is the same",
    ),
)
