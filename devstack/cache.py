"""Downloads and builds, kept in the user's cache folder and shared by all clones.

An entry appears whole or not at all: it is made in a folder beside its place, under a lock that
two processes cannot both hold, and renamed when it is complete. What an interrupted fill left is
removed by the next one. It must not know what is in an entry.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.progress import Progress


def default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "hotkey"


def digest(*texts: str | bytes) -> str:
    """A key that changes when any of the texts does (16 hexadecimal digits)."""
    hasher = hashlib.sha256()
    for text in texts:
        raw = text.encode() if isinstance(text, str) else text
        hasher.update(len(raw).to_bytes(8, "big") + raw)
    return hasher.hexdigest()[:16]


class Cache:
    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def find(self, entry: str) -> Path | None:
        """The folder of a complete entry."""
        path = self.folder / entry
        return path if path.is_dir() else None

    def fill(self, entry: str, make: Callable[[Path], None], progress: Progress) -> Path:
        """The entry's folder; `make` fills an empty folder when the entry is not there yet."""
        found = self.find(entry)
        if found is not None:
            return found
        with self.lock(entry, progress):
            return self.find(entry) or self._make(entry, make)

    def _make(self, entry: str, make: Callable[[Path], None]) -> Path:
        with self.workspace(entry) as partial:
            make(partial)
            return self.publish(partial, entry)

    def publish(self, partial: Path, entry: str) -> Path:
        """Gives a complete folder its name, at once."""
        return partial.rename(self.folder / entry)

    @contextmanager
    def workspace(self, entry: str) -> Iterator[Path]:
        """An empty folder on the same file system, gone afterwards; hold the lock of `entry`."""
        partial = self.folder / f"{entry}.partial"
        remove(partial)
        partial.mkdir(parents=True)
        try:
            yield partial
        finally:
            remove(partial)

    @contextmanager
    def lock(self, entry: str, progress: Progress) -> Iterator[None]:
        """Held by one process at a time; the kernel lets go of it when that process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{entry}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with progress.step(f"waiting for another process that fills {entry}"):
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield


def remove(folder: Path) -> None:
    """Removes a tree, read-only folders (as Go's module cache has) included."""
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)
