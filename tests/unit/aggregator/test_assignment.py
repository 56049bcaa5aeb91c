"""Where reading goes on when some of what is asked for that is not answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from hotkey_aggregator.assignment import ASK_SECONDS, RETRY_SECONDS, Assignment, Place
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pending import Pending
from hotkey_aggregator.store import Flush, Keeping, OffsetMove, Position
from hotkey_aggregator.windows import Source
from tests.contract.aggregator.model_store import ModelStore

PLACES = [("clicks", number) for number in range(4)]


@dataclass
class Brokers:
    """What answers a member: logs that begin at 10 and end at 20, but for those without a leader."""

    leaderless: set[Place] = field(default_factory=set)
    patience: float = 0.0
    """Seconds until it shows that there is none."""
    now: float = 0.0
    read_from: dict[Place, int] = field(default_factory=dict)

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        place = (partition.topic, partition.partition)
        if place in self.leaderless:
            self.now += min(timeout, self.patience)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 10, 20

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.read_from.update({(one.topic, one.partition): one.offset for one in partitions})

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            del self.read_from[one.topic, one.partition]

    def topic_ids(self, names: set[str], _: float) -> dict[str, str]:
        return {name: f"id of {name}" for name in names}


@dataclass(frozen=True)
class Read:
    """A record of the first log, as far as it is looked at here."""

    at: int
    epoch: int

    def topic(self) -> str:
        return PLACES[0][0]

    def partition(self) -> int:
        return PLACES[0][1]

    def offset(self) -> int:
        return self.at

    def leader_epoch(self) -> int:
        return self.epoch


def assignment_of(brokers: Brokers, store: ModelStore, pending: Pending) -> Assignment:
    answering: Any = brokers
    return Assignment(
        lambda: answering,
        store,
        answering,
        pending,
        Metrics(),
        Keeping(),
        lambda: 0,
        lambda: brokers.now,
    )


def reading(brokers: Brokers) -> Assignment:
    """Four logs are read, and their next offset, 5, is no more in any of them."""
    store, pending = ModelStore(), Pending()
    assignment = assignment_of(brokers, store, pending)
    assignment.add([TopicPartition(*place) for place in PLACES])
    moves = [OffsetMove(source, None, Position(5)) for source in sorted(pending.sources)]
    store.commit(Flush(moves=tuple(moves)))
    for move in moves:
        pending.assign(move.source, move.position)
    assignment.lose_place(PLACES, no_such_offset=True)
    return assignment


def settle_for(brokers: Brokers, assignment: Assignment, turns: int) -> None:
    for _ in range(turns):
        brokers.now += RETRY_SECONDS
        assignment.settle()


@pytest.mark.parametrize("leaderless", [PLACES[0], PLACES[2]])
@pytest.mark.parametrize("patience", [0.0, ASK_SECONDS])
def test_a_log_without_a_leader_keeps_no_other_from_being_read_on(leaderless: Place, patience: float) -> None:
    # given
    brokers = Brokers({leaderless}, patience)
    assignment = reading(brokers)

    # when
    settle_for(brokers, assignment, 2)

    # then all others are read where their logs begin now
    others = set(PLACES) - {leaderless}
    assert set(assignment.unplaced) == {leaderless}
    assert {place: brokers.read_from[place] for place in others} == dict.fromkeys(others, 10)

    # and that one, too, when it has a leader again
    brokers.leaderless.clear()
    settle_for(brokers, assignment, 1)
    assert (set(assignment.unplaced), brokers.read_from[leaderless]) == (set(), 10)


def test_many_logs_whose_leader_hangs_hold_up_one_turn_no_longer_than_one_of_them() -> None:
    brokers = Brokers(set(PLACES), ASK_SECONDS)
    assignment = reading(brokers)
    before = brokers.now
    settle_for(brokers, assignment, 1)
    assert brokers.now - before == RETRY_SECONDS + ASK_SECONDS


@pytest.mark.parametrize("epoch", [3, 4], ids=["the log that was read", "a log that was cut off"])
def test_what_was_read_before_it_was_known_where_to_begin_tells_nothing_of_the_log(epoch: int) -> None:
    # given a log of which the store has all before 15, written by the leader of epoch 3
    store = ModelStore()
    source = Source(*PLACES[0], "id of clicks")
    store.commit(Flush(moves=(OffsetMove(source, None, Position(15, leader_epoch=3)),)))
    assignment = assignment_of(Brokers(), store, Pending())
    assignment.add([TopicPartition(*PLACES[0])])

    # when the client still hands out what it read from the log's beginning, of an earlier leader
    early = [Read(offset, epoch=1) for offset in (10, 11)]
    counted = assignment.verified([*early, Read(14, epoch), Read(15, epoch=4)])  # type: ignore[list-item]

    # then the record before the first one decides alone whether the log was cut off
    was_cut_off = epoch != 3
    assert [record.offset() for record in counted] == ([] if was_cut_off else [15])
    assert set(assignment.unplaced) == ({PLACES[0]} if was_cut_off else set())
