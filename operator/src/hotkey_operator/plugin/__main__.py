"""The command `kubectl-hotkeys`, which kubectl finds on PATH as `kubectl hotkeys`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Entry point. Exit code 0; 1 for what is not there or cannot be read; 2 for a wrong command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word, imports included
    from hotkey_operator.plugin._cli import run

    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough of it; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()
