"""The load on the command line: `python -m examples.load --help`."""

from __future__ import annotations

import argparse
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from examples.load.fleet import Load, LoadError
from examples.load.settings import KeyField

COMMANDS = """While it runs it takes commands on standard input, one a line:
  share 0.8     this part of all clicks is the hot key's
  key adidas    another key is hot
  rate 3000     clicks a second, of all producers together
  stop          send what is left and end (so does Ctrl-C)
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.load",
        description="Sends clicks, most of one key, and journals every sent and acknowledged event id.",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bootstrap", required=True, help="Kafka's bootstrap servers")
    add("--topic", required=True)
    add("--directory", required=True, type=Path, help="a new folder for journals and logs")
    add("--redis-url", help="where routing tables are found (default: plain producers, no routing)")
    add("--public-keys", help="the tables' public keys, as text or file:PATH")
    add("--producers", type=int, default=4, help="processes (default 4)")
    add("--rate", type=float, default=5000.0, help="clicks a second of all together (default 5000)")
    add("--hot-key", default="nike")
    add("--hot-share", type=float, default=0.8, help="part of all clicks, 0..1 (default 0.8)")
    add("--key-field", type=KeyField, default=KeyField.ADVERTISER, choices=list(KeyField))
    add("--seconds", type=float, default=60.0, help="end after this time (default 60)")
    add("--records", type=int, default=20_000_000, help="end after this many clicks")
    add("--trace", help="replay this CSV file (ts,key,id,dimension) instead")
    add("--speed", type=float, default=1.0, help="replay so many times faster (default 1)")
    return parser.parse_args(arguments)


def obey(load: Load, line: str) -> bool:
    """Carry out one command; False when it is the one to stop."""
    match line.split():
        case ["stop"]:
            return False
        case ["share", value]:
            load.set_hot_share(float(value))
        case ["key", value]:
            load.set_hot_key(value)
        case ["rate", value]:
            load.set_records_per_second(float(value))
        case []:
            pass
        case _:
            print(f"no such command: {line.strip()}\n{COMMANDS}", file=sys.stderr)
    return True


def follow(load: Load) -> None:
    """Print a line a second and obey commands until the load ends."""
    listening = [sys.stdin]
    while load.running:
        until = time.monotonic() + 1.0
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select(listening, [], [], left)
            line = sys.stdin.readline() if ready else "\n"
            if not line:
                listening = []  # closed: the load goes on to its own end
            elif not obey(load, line):
                return
        print(f"sent={load.sent_count} acked={load.acked_count}", flush=True)


def _load(options: argparse.Namespace) -> Load:
    return Load(
        options.bootstrap,
        options.topic,
        options.redis_url,
        options.public_keys,
        options.directory,
        producers=options.producers,
        records_per_second=options.rate,
        hot_key=options.hot_key,
        hot_share=options.hot_share,
        key_field=options.key_field,
        seconds=options.seconds,
        records=options.records,
        trace=options.trace,
        speed=options.speed,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every click that was sent was answered."""
    options = parse(arguments)
    try:
        load = _load(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        try:
            load.start()
            follow(load)
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)
        load.stop()
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        load.kill()
    print(f"sent={load.sent_count} acked={load.acked_count} journals={load.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
