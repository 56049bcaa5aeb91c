"""`hotkey-aggregator` whose clock is as wrong as the orders of a soak say.

python -m tests.soak.aggregator ORDERS NAME run --topic ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from hotkey_aggregator._cli import main
from tests.soak.orders import Reader, skew_clock

if __name__ == "__main__":
    skew_clock(Reader(Path(sys.argv[1])), sys.argv[2])
    sys.exit(main(sys.argv[3:]))
