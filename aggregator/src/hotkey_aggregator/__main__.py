"""Starts the command `hotkey-aggregator`; Ctrl-C while its parts are still loaded ends it without a word."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Entry point."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hotkey_aggregator._cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
