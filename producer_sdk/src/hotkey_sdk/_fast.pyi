"""The compiled path of a record; _compiled.py alone imports it."""

from collections.abc import Callable
from types import MethodDescriptorType
from typing import Any

from hotkey_sdk._lanes import HashedLane as _PureHashedLane
from hotkey_sdk.routing.router import Destination, Dimensions, Headers
from hotkey_sdk.routing.table import Dimension

class Counts:
    routed: int
    missing_dimension: int
    fell_back: int
    not_durable: int

class HashedLane:
    def __new__(
        cls,
        destinations: tuple[Destination, ...],
        seed: int,
        by: tuple[Dimension, ...],
        counts: Counts,
        pure: _PureHashedLane,
        time_bucket: Callable[[int, int], str],
        /,
    ) -> HashedLane: ...
    def choose(
        self,
        value: str | bytes | None,
        dimensions: Dimensions | None,
        headers: Headers | None,
        timestamp: int,
        /,
    ) -> Destination: ...
    def refused(self) -> None: ...

class StickyLane:
    def __new__(
        cls,
        destinations: tuple[Destination, ...],
        counts: Counts,
        seconds: float,
        records: int,
        size_bytes: int,
        shares: tuple[tuple[int, int], ...],
        clock: Callable[[], float] | None,
        /,
    ) -> StickyLane: ...
    def choose(
        self,
        value: str | bytes | None,
        dimensions: Dimensions | None,
        headers: Headers | None,
        timestamp: int,
        /,
    ) -> Destination: ...
    def refused(self) -> None: ...

class Keys:
    def __new__(cls, lanes: dict[bytes, Any], /) -> Keys: ...

class Recent:
    def clear(self) -> None: ...

def xxh64(data: bytes, seed: int = 0, /) -> int: ...
def bind(
    type: type,
    original: object,
    pure: object,
    names: tuple[str, ...],
    defaults: tuple[object, ...],
    doc: bytes,
    is_gone: Callable[[BaseException], bool],
    kafka_error: type[BaseException],
    lanes_type: type,
    /,
) -> MethodDescriptorType: ...
