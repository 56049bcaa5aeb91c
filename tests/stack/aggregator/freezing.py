"""`hotkey-aggregator` that freezes itself just before the flush that holds the click of an id.

python -m tests.stack.aggregator.freezing EVENT_ID run --topic ...
"""

from __future__ import annotations

import os
import signal
import sys

from hotkey_aggregator._cli import main
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.store import Committed, Flush

EVENT_ID = sys.argv[1]


class FreezingStore(PostgresStore):
    """Stops its process, once."""

    def commit(self, flush: Flush) -> Committed:
        if EVENT_ID in list(flush.clicks.event_ids):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().commit(flush)


if __name__ == "__main__":
    from hotkey_aggregator import postgres_store

    postgres_store.PostgresStore = FreezingStore  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
