"""Flushes to a DuckDB file in a process that is killed after the n-th call of DuckDB.

python -m tests.stack.aggregator.duckdb_steps FILE FLUSHES [torn]

For n = 1, 2, ... until a flush is through: what the killed process has left of its last flush, and what is
in the file once another process has repeated it. One JSON line for each n. Forks are from a process that has
never opened a file, so each is as good as a new one. `torn` is a store that commits in the middle of a flush:
it ends when that was found.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.events import Reason
from hotkey_aggregator.store import DeadLetter, Flush, OffsetMove, Position, StoreError
from hotkey_aggregator.windows import Clicks, Source

SOURCE = Source("clicks", 0, "id-1")
IDS = 50
TORN = 4
REPEATED = 10
"""Ids of the flush before, which each flush has again."""


class Deadly:
    """A connection, or a cursor of one, that counts its calls and ends its process at one of them."""

    left: int | None = None
    torn = False

    def __init__(self, real: Any) -> None:
        self._real = real

    def __enter__(self) -> Deadly:
        self._real.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._real.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not callable(real):
            return real

        def counted(*arguments: Any, **named: Any) -> Any:
            answer = real(*arguments, **named)
            if Deadly.torn and arguments and str(arguments[0]).strip().startswith("insert into ids_"):
                self._real.execute("commit; begin")
            _step()
            return Deadly(answer) if isinstance(answer, duckdb.DuckDBPyConnection) else answer

        return counted


def _step() -> None:
    if Deadly.left is None:
        return
    Deadly.left -= 1
    if Deadly.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def event_id(number: int) -> str:
    return f"e{number}"


def flush_of(number: int) -> Flush:
    """The n-th flush: new ids, some of the one before, and a dead letter."""
    first = number * (IDS + 1)
    ids = [
        event_id(n) for n in range(number * IDS - (REPEATED if number else 0), (number + 1) * IDS - REPEATED)
    ]
    count = len(ids)
    clicks = Clicks(
        ids,
        ["nike"] * count,
        ["ad"] * count,
        [60_000] * count,
        [0] * count,
        [1] * count,
        [0] * count,
        [first + n for n in range(count)],
        [SOURCE],
    )
    letter = DeadLetter(SOURCE, first + IDS, Reason.EMPTY, "no value")
    expected = first if number else None
    return Flush(
        clicks, (letter,), (OffsetMove(SOURCE, expected, Position(first + IDS + 1)),), 1_000 + number
    )


def in_a_process(act: Any) -> int:
    """Run it in a fork; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except StoreError as error:
            sys.stderr.write(f"{error}\n")
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fill(db: Path, flushes: int) -> None:
    store = DuckDBStore(db)
    for number in range(flushes - 1):
        store.commit(flush_of(number))
    store.close()


def die(db: Path, flushes: int, step: int) -> None:
    store = DuckDBStore(db)
    Deadly.left = step
    store.commit(flush_of(flushes - 1))
    Deadly.left = None


def look(db: Path, flushes: int, step: int) -> None:
    """What was left, and what is there after the flush was repeated where it was not in the file."""
    last = flush_of(flushes - 1)
    before = {one for number in range(flushes - 1) for one in flush_of(number).clicks.event_ids}
    store = DuckDBStore(db)
    left = Counter(one for chunk in store.event_ids() for one in chunk)
    moved = store.positions()[SOURCE].next_offset == last.moves[0].position.next_offset
    totals = store.totals()
    new = len(left) - len(before)
    whole = len(set(last.clicks.event_ids) - before)
    torn = (new, totals.clicks - len(before), totals.dead - (flushes - 1)) != (
        (whole, whole, 1) if moved else (0, 0, 0)
    )
    if not moved and not torn:
        store.commit(last)
    found = Counter(one for chunk in store.event_ids() for one in chunk)
    expected = before | set(last.clicks.event_ids)
    shown = {
        "step": step,
        "flush": whole,
        "left": new,
        "torn": int(torn),
        "doubled": sum(found.values()) - len(found) + abs(store.totals().clicks - len(found)),
        "lost": 0 if torn else len(expected - found.keys()),
    }
    sys.stdout.write(json.dumps(shown) + "\n")
    sys.stdout.flush()
    store.close()
    if torn:
        os._exit(TORN)


def main() -> None:
    db, flushes = Path(sys.argv[1]), int(sys.argv[2])
    Deadly.torn = "torn" in sys.argv[3:]
    connect = duckdb.connect

    def connect_deadly(*arguments: Any, **named: Any) -> Any:
        return Deadly(connect(*arguments, **named))

    full = db.with_name("full")
    assert in_a_process(lambda: fill(full, flushes)) == 0
    step, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        step += 1
        for file in db.parent.glob(f"{db.name}*"):
            file.unlink()
        shutil.copyfile(full, db)
        duckdb.connect = connect_deadly
        status = in_a_process(lambda now=step: die(db, flushes, now))
        duckdb.connect = connect
        looked = in_a_process(lambda now=step: look(db, flushes, now))
        assert looked in (0, TORN)
        if looked == TORN:
            return


if __name__ == "__main__":
    main()
