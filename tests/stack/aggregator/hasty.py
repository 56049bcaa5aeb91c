"""`hotkey-aggregator` whose rebalances and end wait for the store no longer than so many seconds.

python -m tests.stack.aggregator.hasty 1 run --topic ...
"""

from __future__ import annotations

import sys

from hotkey_aggregator import pipeline
from hotkey_aggregator._cli import main

if __name__ == "__main__":
    pipeline.HANDOVER_SECONDS = float(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
