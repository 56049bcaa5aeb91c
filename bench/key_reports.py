"""What `hotkey.report.keys` costs a producer: `python -m bench.key_reports [ROUNDS]`, a Markdown table.

The same producer with it, between two runs without it, sends the same records as fast as it can; and one
record that is looked at is timed by itself, since at lower rates a bigger part of them is.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import senders
from bench.figures import Paired, Ratio
from bench.overhead import rounds
from bench.senders import Way, Ways
from devstack import Stack
from hotkey_sdk._counting import _Counted
from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk._producer import PATHS

RECORDS = 50_000
LOOKED_AT = 50_000
WAYS = (senders.EMPTY, senders.ROUTED)


class _Delivered:
    """What the callback asks a message for, at no cost of its own to speak of."""

    def topic(self) -> str:
        return "clicks"

    def partition(self) -> int:
        return 3

    def __len__(self) -> int:
        return 120


def looked_at_microseconds(keys: int) -> float:
    """CPU of one record that is looked at, of so many different keys: making its callback, and calling it."""
    counts, message = KeyCounts(time.time()), _Delivered()
    named = [b"advertiser-%d" % number for number in range(keys)]
    started = time.thread_time()
    for number in range(LOOKED_AT):
        callback: Any = _Counted(counts, named[number % keys], counts.weight, None)
        counts.gap(16)
        callback(None, message)
    return (time.thread_time() - started) * 1e6 / LOOKED_AT


def measured(stack: Stack, count: int) -> list[Paired]:
    """Each way with reports beside the same without them."""
    path = PATHS.in_use.name
    off = Ways(stack, "silent").sdk(path, WAYS)
    on = [_told(way) for way in Ways(stack, "telling", **{"hotkey.report.keys": True}).sdk(path, WAYS)]
    peers = {told.name: way.name for told, way in zip(on, off, strict=True)}
    found = [each for all_ways in rounds([*off, *on], peers, count, RECORDS, seed=1) for each in all_ways]
    return [Paired.of([each for each in found if each[1].case == told]) for told in peers]


def _told(way: Way) -> Way:
    return replace(way, name=f"{way.name}, reporting keys")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), kubernetes=False) as stack:
        found = measured(stack, count)
    print(f"{count} runs of {RECORDS:,} records, each between two of its peer.\n")
    print("| way | `produce()` thread | whole process | us process, without | us process, with |")
    print("|---|---|---|---|---|")
    for each in found:
        thread, process = Ratio.of(each.thread, each.peer_thread), Ratio.of(each.process, each.peer_process)
        print(
            f"| {each.peer} | {thread.value:.2f} | {process.value:.2f} "
            f"| {statistics.mean(each.peer_process):.2f} | {statistics.mean(each.process):.2f} |"
        )
    few, many = looked_at_microseconds(8), looked_at_microseconds(20_000)
    print(f"\nA record that is looked at: {few:.1f} us of few keys, {many:.1f} us of 20,000.")


if __name__ == "__main__":
    main()
