"""What only a DuckDB file has to do: belong to one process, survive a kill, a full disk, another release."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from hotkey_aggregator.duckdb_ids import CountedIds, segment_milliseconds
from hotkey_aggregator.duckdb_schema import MIGRATIONS
from hotkey_aggregator.duckdb_store import MERGE_ROWS, DuckDBStore
from hotkey_aggregator.events import Reason
from hotkey_aggregator.store import (
    HOUR_MILLISECONDS,
    Count,
    CountQuery,
    DeadLetter,
    Flush,
    Keeping,
    Position,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
)
from hotkey_aggregator.windows import Window
from tests.contract.aggregator.broken_stores import EarlyIdsStore, EarlyOffsetsStore, HashTrustingIds
from tests.contract.aggregator.flushes import P0, P1, Row, clicks, flush, move

CLICKS_A_FLUSH = 3
HORIZON = Keeping().ids


def flush_number(number: int) -> Flush:
    """Three new clicks, the first click of the flush before, a dead letter and the offset's move.

    Each comes an hour after the one before: it opens a segment, and finds its duplicate in an older one.
    """
    first = number * CLICKS_A_FLUSH
    again = [first - CLICKS_A_FLUSH] if number else []
    rows = [Row(f"e{event}") for event in [first, first + 1, first + 2, *again]]
    bad = DeadLetter(P0, number, Reason.EMPTY, "no value", key=b"nike")
    return Flush(clicks(*rows), (bad,), move(P0, number or None, number + 1), number * HOUR_MILLISECONDS)


# Runs in a process of its own: commits flush 0, then goes on with a SIGKILL in place of statement N.
KILLED_WRITER = """
import importlib, os, signal, sys
from pathlib import Path
from hotkey_aggregator.store import HOUR_MILLISECONDS
from tests.contract.aggregator.test_duckdb_file import HORIZON, flush_number

class Deadly:
    def __init__(self, connection, statements):
        self.connection, self.left = connection, statements
    def __getattr__(self, name):
        return getattr(self.connection, name)
    def execute(self, *arguments):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return self.connection.execute(*arguments)

path, statements, module, name, action = sys.argv[1:]
store = getattr(importlib.import_module(module), name)(Path(path))
store.commit(flush_number(0))
store._file.connection = deadly = Deadly(store._file.connection, int(statements))
if action == "flush":
    store.commit(flush_number(1))
else:
    store.expire(HORIZON + 100 * 24 * HOUR_MILLISECONDS)
print("statements left:", deadly.left, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_killed_writer(
    path: Path, statements: int, kind: type[DuckDBStore], action: str = "flush"
) -> subprocess.CompletedProcess[str]:
    arguments = [str(path), str(statements), kind.__module__, kind.__name__, action]
    return run_child(KILLED_WRITER, *arguments)


def run_child(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=Path(__file__).parents[3],
    )


def statements_of(tmp_path: Path, kind: type[DuckDBStore], action: str = "flush") -> int:
    never = 1000
    done = run_killed_writer(tmp_path / f"all-{action}.duckdb", never, kind, action)
    assert done.returncode == -signal.SIGKILL, done.stderr
    statements = never - int(done.stdout.rpartition(":")[2])
    assert statements > 5, done.stderr
    return statements


def ids(store: DuckDBStore) -> Counter[str]:
    return Counter(event_id for chunk in store.event_ids() for event_id in chunk)


def counted(store: DuckDBStore) -> list[int]:
    return [count.clicks for count in store.counts(CountQuery())]


def kill_before_each_statement_of_a_flush(tmp_path: Path, kind: type[DuckDBStore]) -> None:
    """Fails where the file then holds a part of the flush."""
    statements = statements_of(tmp_path, kind)
    for survived in range(statements + 1):
        # given a writer that was killed after that many statements of its second flush
        path = tmp_path / f"{survived}.duckdb"
        killed = run_killed_writer(path, survived, kind)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

        # when the file is opened again
        store = DuckDBStore(path)
        flushed = store.positions()[P0].next_offset

        # then the flush is there whole exactly if its commit was executed
        found = f"killed after {survived} statements, {flushed} flushes by the offset, {store.totals()}"
        assert flushed == (2 if survived == statements else 1), found
        assert store.totals().clicks == store.totals().event_ids == flushed * CLICKS_A_FLUSH, found
        assert store.totals().dead == len(store.undelivered([P0], 9)) == flushed, found

        # and going on from the stored offset neither loses nor doubles
        for number in range(flushed, 4):
            store.commit(flush_number(number))
        assert ids(store) == Counter(f"e{n}" for n in range(4 * CLICKS_A_FLUSH))
        assert counted(store) == [4 * CLICKS_A_FLUSH]
        store.close()


def test_a_kill_before_any_statement_of_a_flush_keeps_all_of_it_or_nothing(tmp_path: Path) -> None:
    kill_before_each_statement_of_a_flush(tmp_path, DuckDBStore)


@pytest.mark.parametrize("broken", [EarlyOffsetsStore, EarlyIdsStore])
def test_a_store_that_writes_a_flush_in_two_transactions_is_found(
    tmp_path: Path, broken: type[DuckDBStore]
) -> None:
    with pytest.raises(AssertionError, match=r"killed after \d+ statements, \d flushes by the offset"):
        kill_before_each_statement_of_a_flush(tmp_path, broken)


def test_a_kill_before_any_statement_of_expiring_loses_no_click_from_the_total(tmp_path: Path) -> None:
    statements = statements_of(tmp_path, DuckDBStore, "expire")
    for survived in range(statements + 1):
        # given a writer that was killed after that many statements of expiring what it has
        path = tmp_path / f"{survived}.duckdb"
        run_killed_writer(path, survived, DuckDBStore, "expire")

        # when
        store = DuckDBStore(path)
        totals = store.totals()
        store.expire(HORIZON + 100 * 24 * HOUR_MILLISECONDS)

        # then
        assert totals.clicks == totals.event_ids + totals.forgotten == CLICKS_A_FLUSH, (survived, totals)
        assert (store.totals().forgotten, store.totals().windows) == (CLICKS_A_FLUSH, 0)
        store.close()


# Says after each flush that it is committed, for ever.
ENDLESS_WRITER = """
import sys
from pathlib import Path
from hotkey_aggregator.duckdb_store import DuckDBStore
from tests.contract.aggregator.flushes import P0, Row, flush

store = DuckDBStore(Path(sys.argv[1]))
at = store.positions()[P0].next_offset if P0 in store.positions() else None
while True:
    rows = [Row(f"e{n}", payload="x" * 50) for n in range(at or 0, (at or 0) + 5_000)]
    store.commit(flush(*rows, at=at))
    at = (at or 0) + len(rows)
    print(at, flush=True)
"""


def test_a_writer_that_is_killed_at_any_time_loses_nothing_that_it_had_committed(tmp_path: Path) -> None:
    path, dice = tmp_path / "counts.duckdb", random.Random(1)
    for _ in range(3):
        # given a writer that is killed some time after it said that a flush was committed
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS_WRITER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        ) as writer:
            assert writer.stdout is not None
            said = [int(writer.stdout.readline()) for _ in range(dice.randint(1, 6))][-1]
            writer.kill()

        # then at least that is there, and whole
        store = DuckDBStore(path)
        at, totals = store.positions()[P0].next_offset, store.totals()
        assert at >= said
        assert totals.clicks == totals.event_ids == at, totals
        assert store.commit(flush(Row("e0"), Row(f"e{at - 1}"), source=P1, at=at_of(store))).duplicates == 2
        store.close()


def at_of(store: DuckDBStore) -> int | None:
    found = store.positions().get(P1)
    return found.next_offset if found else None


# No file of the process may grow beyond what it has: to DuckDB that is a disk that is full.
FULL_DISK = """
import resource, sys
from pathlib import Path
from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.store import StoreUnavailableError
from tests.contract.aggregator.flushes import Row, flush

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

path, size = Path(sys.argv[1]), int(sys.argv[2])
store = DuckDBStore(path)
store.commit(flush(*(Row(f"a{n}") for n in range(1_000))))
more = flush(*(Row(f"b{n}") for n in range(size)), at=1_000)
limit(max(file.stat().st_size for file in path.parent.iterdir()) + 4_096)
for _ in range(3):
    try:
        print("committed", store.commit(more))
    except StoreUnavailableError as error:
        print("unavailable:", error)
limit(resource.RLIM_INFINITY)
try:
    print("then", store.commit(more).counted, store.totals())
except Exception as error:
    print("then", type(error).__name__, error)
"""


@pytest.mark.parametrize("size", [20_000, 300_000])
def test_a_full_disk_makes_the_store_unavailable_until_there_is_room(tmp_path: Path, size: int) -> None:
    # given a process whose files cannot grow, when it flushes three times and then gets room
    done = run_child(FULL_DISK, str(tmp_path / "counts.duckdb"), str(size))

    # then each flush says so, and the one after them is counted once
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["unavailable"] * 3, done.stdout + done.stderr
    assert "What was committed before is safe" in lines[0]
    assert lines[3].startswith(f"then {size} Totals(clicks={size + 1_000}, event_ids={size + 1_000},"), lines


NO_ROOM_AT_THE_START = """
import resource, sys
from hotkey_aggregator import _cli, duckdb_store

resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
flags = ["--bootstrap-servers=127.0.0.1:1", "--topic=clicks", f"--db={sys.argv[1]}", "--http-port=0"]
sys.exit(_cli.main(["run", *flags]))
"""


def test_a_file_that_cannot_be_opened_for_a_passing_reason_ends_the_start_with_what_to_do(
    tmp_path: Path,
) -> None:
    # given a disk without room, when
    path = tmp_path / "counts.duckdb"
    done = run_child(NO_ROOM_AT_THE_START, str(path))

    # then it ends and says what to do
    assert done.returncode == 1, done.stderr
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"hotkey-aggregator: the store {path} cannot be opened: ")
    assert "Repair the cause (disk space, rights, memory), " in told

    # and a start with room finds nothing in its way
    store = DuckDBStore(path)
    assert store.commit(flush(Row("1"))).counted == 1
    store.close()


def test_a_second_process_on_the_file_is_told_who_has_it(tmp_path: Path) -> None:
    # given a process that has the file open
    path = tmp_path / "counts.duckdb"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from hotkey_aggregator.duckdb_store import DuckDBStore\n"
            "store = DuckDBStore(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"

        # when
        with pytest.raises(StoreInUseError) as refused:
            DuckDBStore(path)

        # then
        assert f"{path} is in use by process {holder.pid}" in str(refused.value)
    finally:
        holder.communicate(timeout=30)


def test_a_file_of_the_first_schema_keeps_its_counts_ids_offsets_and_rejected_records(tmp_path: Path) -> None:
    # given a file as the release before has left it
    path = tmp_path / "counts.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("create table meta (name varchar primary key, value varchar not null)")
        connection.execute("insert into meta values ('schema_version', '1'), ('stream', 'cluster-1/clicks')")
        connection.execute(MIGRATIONS[0])
        connection.execute(
            """
            insert into offsets values ('clicks', 0, 3), ('clicks', 1, 0);
            insert into counts values ('nike', 'ad', make_timestamp_ms(60000), 2), ('a:1', 'b', 'epoch', 1);
            insert into events values ('1', 'clicks', 0, 0), ('2', 'clicks', 0, 1), ('3', 'clicks.hot', 0, 7);
            insert into rejected values ('clicks', 0, 2, 'Empty', 'the record has no value');
            """
        )

    # when
    store = DuckDBStore(path)
    store.bind("cluster-1/clicks")
    store.name_topics({"clicks": "topic-id-1"})

    # then what it held is there
    rejected = DeadLetter(P0, 2, Reason.EMPTY, "the record has no value")
    assert dict(store.positions()) == {P0: Position(3), P1: Position(0)}
    assert list(store.counts(CountQuery())) == [
        Count(Window("a:1", "b", 0), 1),
        Count(Window("nike", "ad", 60_000), 2),
    ]
    assert ids(store) == Counter("123")
    assert (list(store.dead(9)), list(store.undelivered([P0], 9))) == ([rejected], [])

    # and goes on being right: a re-send is found, no conflict is made up
    again = store.commit(flush(Row("1"), Row("3"), Row("4", time=60_000), at=3, now=5 * HOUR_MILLISECONDS))
    assert (again.counted, again.duplicates, again.conflicts) == (1, 2, 0)
    assert store.totals().clicks == store.totals().event_ids == 4
    store.expire(5 * HOUR_MILLISECONDS + HORIZON)
    assert store.totals().event_ids == 4
    store.expire(6 * HOUR_MILLISECONDS + HORIZON)
    assert (store.totals().event_ids, store.totals().forgotten) == (0, 4)
    store.close()


def test_ids_whose_hashes_are_all_the_same_are_told_apart_by_their_text(tmp_path: Path) -> None:
    # given a file in which DuckDB's hash is one number for everything
    path = tmp_path / "counts.duckdb"
    with_one_hash(path)

    # when
    store = DuckDBStore(path)
    found = collide(store)

    # then
    assert found == (100, 30)
    store.close()


def test_a_store_that_trusts_the_hash_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counts.duckdb"
    with_one_hash(path)
    monkeypatch.setattr(CountedIds, "_look", HashTrustingIds._look)
    store = DuckDBStore(path)
    assert collide(store) != (100, 30)
    store.close()


def with_one_hash(path: Path) -> None:
    DuckDBStore(path).close()
    with duckdb.connect(path) as connection:
        connection.execute("create macro hash(x) as 42::ubigint")


def collide(store: DuckDBStore) -> tuple[int, int]:
    """Counted and duplicates of a hundred ids of which thirty come again."""
    rows = [Row(f"e{n}") for n in range(100)]
    flushes = [flush(*rows[:50]), flush(*rows[50:], *rows[70:80], at=50), flush(*rows[30:50], source=P1)]
    done = [store.commit(one) for one in flushes]
    return sum(one.counted for one in done), sum(one.duplicates for one in done)


def test_a_release_of_duckdb_with_other_hashes_finds_the_ids_all_the_same(tmp_path: Path) -> None:
    # given a file whose hashes are another release's
    path = tmp_path / "counts.duckdb"
    store = DuckDBStore(path)
    store.commit(flush(Row("1"), Row("2")))
    store.close()
    with duckdb.connect(path) as connection:
        connection.execute("update ids_0 set hash = hash + 1")
        connection.execute("update meta set value = 'of another release' where name = 'hash_probe'")

    # when, then
    store = DuckDBStore(path)
    assert store.commit(flush(Row("1"), Row("3"), at=2)).duplicates == 1
    store.close()


def test_a_filter_that_is_full_is_made_anew_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("hotkey_aggregator.id_filter.LEAST_CAPACITY", 100)
    store = DuckDBStore(tmp_path / "counts.duckdb")
    first = store._ids.filter

    # when
    for number in range(10):
        store.commit(flush(*(Row(f"{number}-{n}") for n in range(50)), at=number * 50 or None))
    again = store.commit(flush(*(Row(f"{number}-7") for number in range(10)), source=P1))

    # then
    assert store._ids.filter is not first
    assert (again.counted, again.duplicates) == (0, 10)
    store.close()


def test_a_filter_that_could_not_be_made_is_not_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a filter that is full, and a store that cannot be read just then
    monkeypatch.setattr("hotkey_aggregator.id_filter.LEAST_CAPACITY", 100)
    store = DuckDBStore(tmp_path / "counts.duckdb")
    store.commit(flush(*(Row(f"{n}") for n in range(90))))
    more = flush(*(Row(f"{n}") for n in range(80, 120)), source=P1)

    def unreadable(ids: CountedIds, number: int) -> None:
        raise StoreUnavailableError("no")

    with monkeypatch.context() as fault:
        fault.setattr(CountedIds, "_filter_of_store", unreadable)
        with pytest.raises(StoreUnavailableError):
            store.commit(more)

    # when it can be read again
    committed = store.commit(more)

    # then
    assert (committed.counted, committed.duplicates) == (30, 10)
    store.close()


def test_segments_are_an_hour_and_longer_where_the_horizon_is() -> None:
    assert segment_milliseconds(HORIZON) == HOUR_MILLISECONDS
    assert segment_milliseconds(HOUR_MILLISECONDS) == HOUR_MILLISECONDS
    assert segment_milliseconds(30 * HORIZON) == 30 * HOUR_MILLISECONDS


def test_ids_are_forgotten_by_the_hour_in_which_they_came(tmp_path: Path) -> None:
    # given one id an hour, and a clock that once went back
    store = DuckDBStore(tmp_path / "counts.duckdb")
    for hour in range(30):
        now = (hour - (20 if hour == 25 else 0)) * HOUR_MILLISECONDS
        store.commit(flush(Row(f"{hour}"), at=hour or None, now=now))

    # when
    store.expire(30 * HOUR_MILLISECONDS)

    # then those of the last 24 hours are there
    assert ids(store) == Counter(f"{hour}" for hour in range(6, 30))
    assert store.commit(flush(Row("25"), Row("6"), Row("5"), source=P1)).duplicates == 2
    store.close()


def test_ids_that_come_after_a_clock_was_years_ahead_are_forgotten_in_their_time(tmp_path: Path) -> None:
    # given an id that came while the clock was ahead, and some that came afterwards
    store = DuckDBStore(tmp_path / "counts.duckdb")
    years = 50 * 365 * HORIZON
    store.commit(flush(Row("before"), now=0))
    store.commit(flush(Row("ahead"), at=1, now=years))
    for hour in range(1, 4):
        now = hour * HOUR_MILLISECONDS
        store.commit(flush(Row(f"{hour}"), at=hour + 1, now=now))

    # when
    known = store.commit(flush(*(Row(one) for one in ("before", "ahead", "1", "3")), source=P1, now=now))
    store.expire(HORIZON + 3 * HOUR_MILLISECONDS)

    # then
    assert known.duplicates == 4
    assert ids(store) == Counter(["ahead", "3"])
    store.close()


def test_recent_counts_are_merged_and_read_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given windows that several flushes brought, and another after they were merged
    monkeypatch.setattr("hotkey_aggregator.duckdb_store.MERGE_ROWS", 3)
    assert MERGE_ROWS > 3
    store = DuckDBStore(tmp_path / "counts.duckdb")
    for n in range(4):
        store.commit(flush(Row(f"a{n}", cost=1), Row(f"b{n}", time=60_000, cost=2), at=2 * n or None))
    before = list(store.counts(CountQuery()))

    # when
    store.expire(60_000)
    merged = list(store.counts(CountQuery()))
    store.commit(flush(Row("late", cost=5), at=8))

    # then
    first, second = Window("nike", "ad", 0), Window("nike", "ad", 60_000)
    assert before == merged == [Count(first, 4, 4), Count(second, 4, 8)]
    assert store.counts(CountQuery())[0] == Count(first, 5, 9)
    assert (store.totals().clicks, store.totals().windows) == (9, 2)
    store.close()


def test_costs_beyond_64_bits_are_merged_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotkey_aggregator.duckdb_store.MERGE_ROWS", 2)
    store = DuckDBStore(tmp_path / "counts.duckdb")
    for n in range(4):
        store.commit(flush(Row(f"{n}", cost=2**62 - 1), at=n or None))

    store.expire(0)

    assert store._file.rows("select count(*) from recent_counts") == [(0,)]
    assert list(store.counts(CountQuery())) == [Count(Window("nike", "ad", 0), 4, 4 * (2**62 - 1))]
    assert (store.totals().clicks, store.totals().windows) == (4, 1)
    store.close()


def test_a_reader_goes_on_while_the_segment_that_it_reads_is_dropped(tmp_path: Path) -> None:
    # given a reader in the middle of the ids
    store = DuckDBStore(tmp_path / "counts.duckdb")
    many = [Row(f"{n}") for n in range(50_000)]
    store.commit(flush(*many))
    chunks = store.event_ids()
    first = next(chunks)

    # when
    store.expire(2 * HORIZON)

    # then
    assert Counter([*first, *(event_id for chunk in chunks for event_id in chunk)]) == Counter(
        row.event_id for row in many
    )
    assert ids(store) == Counter()
    store.close()


def test_the_file_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "counts.duckdb"
    DuckDBStore(path).close()
    again = DuckDBStore(path)
    assert again.totals().clicks == 0
    again.close()


def test_a_file_of_a_later_release_is_refused(tmp_path: Path) -> None:
    # given
    path = tmp_path / "counts.duckdb"
    DuckDBStore(path).close()
    later = len(MIGRATIONS) + 1
    with duckdb.connect(path) as connection:
        connection.execute("update meta set value = ? where name = 'schema_version'", [str(later)])

    # when, then
    with pytest.raises(StoreError, match=f"schema version {later}, this release knows versions up to"):
        DuckDBStore(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database " * 200)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt cannot be opened"):
        DuckDBStore(path)
    assert path.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the folder .*absent does not exist"):
        DuckDBStore(tmp_path / "absent" / "counts.duckdb")
