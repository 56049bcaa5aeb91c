"""A background thread's way to a client that it must neither keep alive nor use while it is being closed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Client = TypeVar("Client")


class Borrow(Generic[Client]):
    """Lends the client out for one bounded call; `end` waits for that call and lends no more."""

    def __init__(self, client: Client) -> None:
        self._client = weakref.ref(client)
        self._lock = threading.Lock()
        self._ended = False

    @contextmanager
    def __call__(self) -> Iterator[Client | None]:
        """The client, or None when it is closed or gone."""
        with self._lock:
            yield None if self._ended else self._client()

    def end(self) -> None:
        """After this the client is never lent again."""
        with self._lock:
            self._ended = True
