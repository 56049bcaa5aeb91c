"""`hotkey-aggregator replay` that is killed when letters were sent and before that is noted.

python -m tests.stack.aggregator.deadly_replay replay --topic ...
"""

from __future__ import annotations

import os
import signal
import sys

from hotkey_aggregator import replay
from hotkey_aggregator._cli import main

if __name__ == "__main__":
    replay.BATCH = 4
    replay._Replay._note = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    sys.exit(main())
