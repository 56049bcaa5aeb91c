"""What only a DuckDB file has to do: belong to one process, survive a kill, know its schema's version."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from hotkey_aggregator.duckdb_store import MIGRATIONS, DuckDBStore
from hotkey_aggregator.events import Click, Reason
from hotkey_aggregator.store import (
    CountQuery,
    Flush,
    OffsetMove,
    Rejected,
    StoreError,
    StoreInUseError,
)
from hotkey_aggregator.windows import Batch, Source
from tests.contract.aggregator.broken_stores import EarlyIdsStore, EarlyOffsetsStore

P0 = Source("clicks", 0)
CLICKS_A_FLUSH = 3


def flush_number(number: int) -> Flush:
    """Three new clicks, the first click of the flush before, one bad record and the offset's move."""
    batch = Batch()
    first = number * CLICKS_A_FLUSH
    for event in [first, first + 1, first + 2, *([first - CLICKS_A_FLUSH] if number else [])]:
        batch.add(Click(f"e{event}", "nike", "ad", "user", 0), P0, event)
    bad = Rejected(P0, number, Reason.EMPTY, "no value")
    return Flush(batch.clicks(), (bad,), (OffsetMove(P0, number or None, number + 1),))


# Runs in a process of its own: commits flush 0, then flush 1 with a SIGKILL in place of statement N.
KILLED_WRITER = """
import importlib, os, signal, sys
from pathlib import Path
from tests.contract.aggregator.test_duckdb_file import flush_number

class Deadly:
    def __init__(self, connection, statements):
        self.connection, self.left = connection, statements
    def execute(self, *arguments):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return self.connection.execute(*arguments)

store = getattr(importlib.import_module(sys.argv[3]), sys.argv[4])(Path(sys.argv[1]))
store.commit(flush_number(0))
store._connection = deadly = Deadly(store._connection, int(sys.argv[2]))
store.commit(flush_number(1))
print("statements left:", deadly.left, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_killed_writer(
    path: Path, statements: int, kind: type[DuckDBStore]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(path), str(statements), kind.__module__, kind.__name__],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )


def kill_before_each_statement_of_a_flush(tmp_path: Path, kind: type[DuckDBStore]) -> None:
    """Fails where the file then holds a part of the flush."""
    never = 1000
    done = run_killed_writer(tmp_path / "all.duckdb", never, kind)
    statements = never - int(done.stdout.rpartition(":")[2])
    assert statements > 5, done.stderr

    for survived in [*range(statements + 1)]:
        # given a writer that was killed after that many statements of its second flush
        path = tmp_path / f"{survived}.duckdb"
        killed = run_killed_writer(path, survived, kind)
        assert killed.returncode == -9, killed.stderr

        # when the file is opened again
        store = DuckDBStore(path)
        flushed = store.offsets()[P0]

        # then the flush is there whole exactly if its commit was executed
        found = f"killed after {survived} statements, {flushed} flushes by the offset, {store.totals()}"
        assert flushed == (2 if survived == statements else 1), found
        assert store.totals().clicks == store.totals().event_ids == flushed * CLICKS_A_FLUSH, found
        assert store.totals().rejected == flushed, found

        # and going on from the stored offset neither loses nor doubles
        for number in range(flushed, 4):
            store.commit(flush_number(number))
        ids = Counter(event_id for chunk in store.event_ids() for event_id in chunk)
        assert ids == Counter(f"e{n}" for n in range(4 * CLICKS_A_FLUSH))
        assert [count.clicks for count in store.counts(CountQuery())] == [4 * CLICKS_A_FLUSH]
        store.close()


def test_a_kill_before_any_statement_of_a_flush_keeps_all_of_it_or_nothing(tmp_path: Path) -> None:
    kill_before_each_statement_of_a_flush(tmp_path, DuckDBStore)


@pytest.mark.parametrize("broken", [EarlyOffsetsStore, EarlyIdsStore])
def test_a_store_that_writes_a_flush_in_two_transactions_is_found(
    tmp_path: Path, broken: type[DuckDBStore]
) -> None:
    with pytest.raises(AssertionError, match=r"killed after \d+ statements, \d flushes by the offset"):
        kill_before_each_statement_of_a_flush(tmp_path, broken)


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
