"""`hotkey-aggregator` whose clock is as many seconds wrong as a file says, and which forgets often.

python -m tests.stack.aggregator.wrong_clock FILE run --topic ...
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hotkey_aggregator import pipeline
from hotkey_aggregator._cli import main


def off_by(file: Path, right: Callable[[], float]) -> Callable[[], float]:
    return lambda: right() + float(file.read_text() or 0)


def telling(pipeline_class: Any) -> None:
    """Each time that the store was tidied up is told in the log."""
    expire = pipeline_class._expire

    def tell(self: Any, *arguments: Any) -> None:
        expire(self, *arguments)
        logging.getLogger("hotkey_aggregator").info("event=tidied")

    pipeline_class._expire = tell


if __name__ == "__main__":
    time.time = off_by(Path(sys.argv[1]), time.time)
    pipeline.EXPIRE_SECONDS = 0.5
    telling(pipeline.Pipeline)
    sys.exit(main(sys.argv[2:]))
