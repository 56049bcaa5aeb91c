"""Starts the command `hotkey-operator`; Ctrl-C while its parts are still loaded ends it without a word."""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point."""
    quiet = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if quiet:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hotkey_operator.__main__ import main as command

    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()
