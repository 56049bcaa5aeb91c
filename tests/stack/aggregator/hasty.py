"""`hotkey-aggregator` whose rebalances and end wait for the store no longer than so many seconds.

PostgreSQL waits for a lock as long as a test may take: what is held up there must not be given up there.

python -m tests.stack.aggregator.hasty 1 run --topic ...
"""

from __future__ import annotations

import sys

from hotkey_aggregator import pipeline, postgres_connections
from hotkey_aggregator._cli import main

if __name__ == "__main__":
    pipeline.HANDOVER_SECONDS = float(sys.argv[1])
    postgres_connections._SESSION |= {"lock_timeout": "300s", "statement_timeout": "300s"}
    sys.exit(main(sys.argv[2:]))
