"""The slot of a record: one seeded hash over its dimensions, the same in every client and language.

`XXH64(seed, values in the rung's order, each as a 4-byte little-endian length and its UTF-8 bytes)`, integers
as decimal text, bytes (a header's value) as they are, a missing dimension as empty text; the slot is the hash
modulo the number of slots.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

Value = str | int | bytes | None

_LENGTHS = tuple(
    size.to_bytes(4, "little") for size in range(256)
)  # made once: a producer hashes every record


def value_bytes(value: Value) -> bytes:
    """The bytes that are hashed for one dimension: UTF-8 text, decimal digits, raw bytes, or nothing."""
    if isinstance(value, bytes):
        return value
    text = "" if value is None else value if type(value) is str else str(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def slot_hash(seed: int, values: Iterable[Value]) -> int:
    """The unsigned 64-bit hash of the dimension values, given in the rung's order."""
    packed = b""
    for value in values:
        data = value_bytes(value)
        size = len(data)
        packed += (_LENGTHS[size] if size < 256 else size.to_bytes(4, "little")) + data
    return xxhash.xxh64_intdigest(packed, seed)
