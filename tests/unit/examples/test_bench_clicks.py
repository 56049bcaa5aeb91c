"""Where the benchmarks' clicks go, and what is known of them afterwards."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

from bench.clicks import HOT, HOT_SHARE, Placing, Sent, cold_keys, spread
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Stream, Table

PARTITIONS = 48


def load(placing: Placing) -> list[float]:
    """Of each partition, in means: the hot key's part by drawing slots, the others' as it is."""
    dice, draws = random.Random(1), 20_000
    found = dict.fromkeys(range(PARTITIONS), 0.0)
    for _ in range(draws):
        found[placing.at(HOT, dice.getrandbits(40))[0]] += HOT_SHARE / draws
    for key in cold_keys():
        found[placing.at(key, 0)[0]] += (1 - HOT_SHARE) / len(cold_keys())
    return [part * PARTITIONS for part in found.values()]


def test_the_planned_table_gives_every_partition_the_same_load() -> None:
    assert max(load(Placing(spread("clicks", PARTITIONS)))) < 1.2


def test_without_a_table_the_hot_key_is_on_the_partition_of_its_name() -> None:
    plain = Placing(Table.empty(Stream("c", "clicks"), partitions=PARTITIONS, epoch=1, seed=1))

    assert plain.at(HOT, 7) == (partition_for(HOT.encode(), PARTITIONS), HOT.encode())
    assert max(load(plain)) > HOT_SHARE * PARTITIONS


def test_a_shard_has_the_record_key_that_the_default_partitioner_puts_there() -> None:
    placing = Placing(spread("clicks", PARTITIONS))

    for slot in range(500):
        partition, key = placing.at(HOT, slot)
        assert partition_for(key, PARTITIONS) == partition


def test_what_was_sent_is_known_by_partition_and_offset(tmp_path: Path) -> None:
    journal = tmp_path / "sent"
    journal.write_bytes(array("q", [2, 100, 0, 101, 2, 102, 2, 102]).tobytes())

    sent = Sent.read(journal, 4)

    assert [times.tolist() for times in sent.times] == [[101], [], [100, 102, 102], []]
    assert sent.count == 4
