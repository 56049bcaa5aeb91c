"""Which store `--store` names. The only place that knows which stores there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hotkey_aggregator.store import Keeping, Store

DUCKDB = "duckdb:"
POSTGRES = ("postgresql://", "postgres://")
SCHEMA = "hotkey"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store as people name it: `duckdb:PATH` or `postgresql://...`."""

    text: str
    schema: str = SCHEMA
    """Of PostgreSQL, which holds the tables."""

    @property
    def is_shared(self) -> bool:
        """Whether many processes may count into it."""
        return self.text.startswith(POSTGRES)

    @property
    def mistake(self) -> str | None:
        """What is wrong with it; None when nothing is."""
        if self.is_shared or (self.text.startswith(DUCKDB) and self.text != DUCKDB):
            return None
        # It may be a connection string with a password in it, misspelt.
        return f"found {self.shown!r}, expected duckdb:PATH or postgresql://USER@HOST:PORT/DATABASE"

    @property
    def shown(self) -> str:
        """For logs and messages: without user, password and parameters."""
        if not self.is_shared:
            scheme, colon, rest = self.text.partition(":")
            return self.text if self.text.startswith(DUCKDB) or "@" not in rest else f"{scheme}{colon}..."
        url = urlsplit(self.text)
        return f"postgresql://{url.netloc.rpartition('@')[2]}{url.path}"

    def open(self, keeping: Keeping) -> Store:
        """Open it. Raises StoreError."""
        if self.is_shared:
            from hotkey_aggregator.postgres_store import PostgresStore

            return PostgresStore(self.text, keeping, self.schema)
        from hotkey_aggregator.duckdb_store import DuckDBStore

        return DuckDBStore(Path(self.text.removeprefix(DUCKDB)), keeping)
