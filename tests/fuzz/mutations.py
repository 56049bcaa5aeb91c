"""Inputs that are nearly right: documents with a few bytes, or a few values in their structure, changed.

Everything follows from the `Random` that is passed in. It knows JSON and nothing of what is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

_TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xc3\xa9",
    b"null", b"true", b"-1", b"0", b"1e999", b"-0.0", b"NaN", b"1" * 20, b"9" * 400, b"9" * 5_000, b" ",
)  # fmt: skip
_NUMBERS = (0, -1, 1, 255, 256, 65_535, 2**31, 2**53, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, 0.5, 1e308)
_TEXTS = (
    "", "a", "nike:7", "clicks", "é" * 10, "\x00", "\ud7ff", "x" * 250, "x" * 5_000, "1" * 20 + "s",
    "9" * 400 + "h", "9" * 5_000 + "h", "1s", "-1s", "AAAA", "AAA", "//8=", "Active", "Idle", "Composite",
)  # fmt: skip
_MOST_DEEP = 5_000


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to four places; now and then one that stays as it is."""
    data = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        data = _structure(random, data) if random.random() < 0.6 else _bytes(random, data, seeds)
    return data


def _bytes(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    until = min(len(data), at + random.choice((1, 1, 2, 8, 40)))
    match random.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[until:]
        case 2:
            return data[:at] + data[at:until] * random.choice((2, 3, 50)) + data[until:]
        case 3:
            return data[:at] + random.randbytes(until - at) + data[until:]
        case 4:
            other = random.choice(seeds)
            return data[:at] + other[random.randrange(len(other) + 1) :]
        case 5:
            depth = random.choice((2, 40, _MOST_DEEP))
            opened, closed = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
            return data[:at] + opened * depth + data[at:until] + closed * depth + data[until:]
        case _:
            return data[:at] + random.choice(_TOKENS) + data[random.choice((at, until)) :]


def _structure(random: Random, data: bytes) -> bytes:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = list(_places(document))
    if not places:
        return json.dumps(_value(random)).encode()
    holder, name = random.choice(places)
    match random.randrange(5):
        case 0:
            del holder[name]
        case 1 if isinstance(holder, dict):
            holder[random.choice(("unknown", *map(str, holder)))] = _value(random)
        case 1:
            holder.insert(random.randrange(len(holder) + 1), random.choice(holder))
        case 2:
            holder_too, name_too = random.choice(places)
            if name_too in (holder_too if isinstance(holder_too, dict) else range(len(holder_too))):
                holder[name] = json.loads(json.dumps(holder_too[name_too]))
        case _:
            holder[name] = _value(random)
    return json.dumps(document).encode()


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    left = [document]
    while left:
        each = left.pop()
        if isinstance(each, dict | list):
            inside = list(each.items()) if isinstance(each, dict) else list(enumerate(each))
            found += [(each, name) for name, _ in inside]
            left += [value for _, value in inside]
    return found


def _value(random: Random) -> Any:
    match random.randrange(6):
        case 0:
            return random.choice(_NUMBERS)
        case 1:
            return random.choice(_TEXTS)
        case 2:
            return random.randrange(-3, 300)
        case 3:
            return random.choice((None, True, False, [], {}))
        case 4:
            return [random.choice(_TEXTS) for _ in range(random.randrange(20))]
        case _:
            return {random.choice(_TEXTS): random.choice(_NUMBERS)}
