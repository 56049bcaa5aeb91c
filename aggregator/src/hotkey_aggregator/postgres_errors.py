"""What a PostgreSQL error means for the aggregator: wait and try again, or stop and say why.

It knows SQLSTATE codes and no statements. No message holds the DSN, which may hold a password.
"""

from __future__ import annotations

import psycopg
from psycopg import conninfo

from hotkey_aggregator.store import StoreError, StoreUnavailableError

TRY_AGAIN_AT_ONCE = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

_PASSING_CLASSES = {"08", "25", "40", "53", "55", "57", "58"}
"""Connection, transaction state (read-only, timed out), rollback, resources, locks, operator, system."""

_LASTING = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "not permitted",
    "does not support SSL",
    "permission denied for database",
)
"""What a server says that a client will hear again however often it tries; libpq hands on no SQLSTATE."""


def place(dsn: str) -> str:
    """The server and database that a DSN names, without user or password. StoreError when it is none."""
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        raise StoreError(
            "the PostgreSQL DSN cannot be read: write postgresql://USER@HOST:PORT/DATABASE "
            "(what it holds is not repeated here, for there may be a password in it)"
        ) from None
    port = parts.get("port") or 5432
    return f"{parts.get('host') or 'localhost'}:{port}/{parts.get('dbname') or ''}"


def connect_error(where: str, error: psycopg.Error) -> StoreError:
    """Why no connection came about."""
    message = _one_line(error)
    if any(phrase in message for phrase in _LASTING):
        return StoreError(
            f"the PostgreSQL store {where} refuses this user or database: {message}. "
            "Correct user, password and database of the DSN, or create them"
        )
    return StoreUnavailableError(f"the PostgreSQL store {where} cannot be reached: {message}")


def store_error(where: str, doing: str, error: psycopg.Error) -> StoreError:
    """Why a statement failed."""
    state = error.sqlstate
    message = f"the PostgreSQL store {where} failed to {doing}: {_one_line(error)}"
    lost = state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if lost or (state or "")[:2] in _PASSING_CLASSES:
        return StoreUnavailableError(f"{message} ({state or 'connection lost'}). It is tried again")
    return StoreError(
        f"{message} ({state}). Nothing of it was kept. Look at the rights of the user and at the server's log"
    )


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
