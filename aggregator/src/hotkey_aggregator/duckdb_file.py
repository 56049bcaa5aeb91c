"""A DuckDB file that belongs to this process: opening it, its schema's version, transactions, readers.

It turns what DuckDB raises into the store's errors, and opens the file anew after a failure that DuckDB does
not go on from (a full disk), so that the caller may simply try again. It knows nothing of clicks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any

import duckdb
import pyarrow as pa

from hotkey_aggregator.store import StoreError, StoreInUseError, StoreUnavailableError

_CONFIG: Mapping[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # What a flush and a merge need; more goes to disk. The filter of ids has most of the process's memory.
    "memory_limit": "128MB",
    # A checkpoint writes the last, unfilled group of rows anew: seldom is cheaper, and after a kill this much
    # is read again from the log, in about a second.
    "checkpoint_threshold": "64MB",
}

_BROKEN = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.TransactionException,  # a commit that could not be written
)
"""After these the file is opened anew."""

_TRY_AGAIN = (*_BROKEN, duckdb.OutOfMemoryException, duckdb.ConnectionException)


class DuckDBFile:
    """One open file. Writers take turns; each reader has a snapshot of its own.

    Raises `StoreInUseError` when another process has the file, `StoreError` when it cannot be opened.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path = path
        self._migrations = migrations
        self._turn = RLock()
        self._failed = False
        self.connection = _connect(path)
        try:
            self._migrate()
        except BaseException:
            self.connection.close()
            raise

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement within the transaction that is open."""
        found: list[tuple[Any, ...]] = self.connection.execute(statement, list(parameters)).fetchall()
        return found

    @contextmanager
    def tables(self, **tables: pa.Table) -> Iterator[None]:
        """Let statements read Arrow tables by these names."""
        for name, table in tables.items():
            self.connection.register(name, table)
        try:
            yield
        finally:
            for name in tables:
                # After a failure the connection may know nothing of them any more, nor of anything else.
                with suppress(duckdb.Error):
                    self.connection.unregister(name)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[None]:
        """All that is executed within takes place, or nothing."""
        with self._turn:
            try:
                self._mend()
                self.connection.execute("begin")
                try:
                    yield
                    self.connection.execute("commit")
                except BaseException:
                    with suppress(duckdb.Error):
                        # A failed commit has ended the transaction; the first error is the one to report.
                        self.connection.execute("rollback")
                    raise
            except duckdb.Error as error:
                raise self._error(purpose, error) from error

    @contextmanager
    def snapshot(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that sees one state of the file whatever is committed meanwhile; usable in any thread."""
        try:
            if self._failed:
                with self._turn:
                    self._mend()
            with self.connection.cursor() as cursor:
                cursor.execute("begin")
                yield cursor
        except duckdb.Error as error:
            raise self._error("read", error) from error

    def close(self) -> None:
        """Release the file."""
        self.connection.close()

    def _mend(self) -> None:
        if self._failed:
            with suppress(duckdb.Error):
                self.connection.close()
            try:
                self.connection = duckdb.connect(self.path, config=dict(_CONFIG))
            except duckdb.Error as error:
                if _is_locked(error):
                    raise _connect_error(self.path, error) from error
                raise StoreUnavailableError(
                    f"the store {self.path} cannot be opened again after a failure: {error}"
                ) from error
            self._failed = False

    def _error(self, purpose: str, error: duckdb.Error) -> StoreError:
        if isinstance(error, _TRY_AGAIN):
            self._failed = self._failed or isinstance(error, _BROKEN)
            return StoreUnavailableError(
                f"the store {self.path} could not {purpose} now: {error}. What was committed before is safe. "
                "Repair the cause (disk space, permissions, memory); it is tried again"
            )
        return StoreError(
            f"the store {self.path} failed to {purpose}: {error}. Nothing of it was kept; what was committed "
            "before is safe"
        )

    def _migrate(self) -> None:
        with self.transaction("migrate"):
            self.connection.execute(
                "create table if not exists meta (name varchar primary key, value varchar not null)"
            )
            found = self.rows("select value from meta where name = 'schema_version'")
            version, known = int(found[0][0]) if found else 0, len(self._migrations)
            if version > known:
                raise StoreError(
                    f"the store {self.path} has schema version {version}, this release knows versions up "
                    f"to {known}: use the release that wrote it, or a newer one"
                )
            for migration in self._migrations[version:]:
                self.connection.execute(migration)
            if version < known:
                self.connection.execute(
                    "insert or replace into meta values ('schema_version', ?)", [str(known)]
                )


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    is_new = not path.exists()
    try:
        return duckdb.connect(path, config=dict(_CONFIG))
    except duckdb.Error as error:
        if is_new and not _is_locked(error):
            # DuckDB would take what it could not finish for no file of its own.
            path.unlink(missing_ok=True)
        raise _connect_error(path, error) from error


def _is_locked(error: duckdb.Error) -> bool:
    return "could not set lock" in str(error).lower()


def _connect_error(path: Path, error: duckdb.Error) -> StoreError:
    message = str(error)
    if _is_locked(error):
        holder = re.search(r"PID (\d+)", message)
        by = f"process {holder.group(1)}" if holder else "another process"
        return StoreInUseError(
            f"the store {path} is in use by {by}; a DuckDB file belongs to one process. "
            "Stop that one, ask it over HTTP (hotkey-aggregator query), or name another file with --db"
        )
    if not path.parent.is_dir():
        return StoreError(
            f"the store {path} cannot be made: the folder {path.parent} does not exist; make it"
        )
    # DuckDB does not tell which of these pass: ending shows it at once, and a supervisor tries again.
    return StoreError(
        f"the store {path} cannot be opened: {message}. Nothing in it was changed. Repair the cause (disk "
        "space, rights, memory), or name another file with --db if this is none of ours; then start again"
    )
