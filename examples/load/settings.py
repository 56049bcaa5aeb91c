"""What a load is: where it goes, how much, and which key is hot; written to a file for the producers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TypedDict

import msgspec

SETTINGS_FILE = "load.json"  # in the load's directory
FLUSH_SECONDS = 30.0  # how long a producer that ends waits for its last answers


class KeyField(StrEnum):
    """The field of a click that is its record key."""

    ADVERTISER = "advertiser_id"
    AD = "ad_id"
    REGION = "region_id"


class LoadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A load over `producers` processes; rates and limits are of all of them together.

    `run` stands in every event id, so that two loads on one topic can be told apart. `public_keys`: text or
    `file:PATH`, as the SDK's `hotkey.public.keys`. `redis_url` None: plain producers without routing.
    `hot_share`: the part of all clicks, 0..1, whose key is `hot_key`; the others are spread evenly over
    `cold_keys` keys. `config`: more settings of the Kafka client. It ends after `seconds` or `records`.
    """

    bootstrap: str
    topic: str
    run: str
    redis_url: str | None = None
    public_keys: str | None = None
    producers: int = 4
    records_per_second: float = 5_000.0
    hot_key: str = "nike"
    hot_share: float = 0.8
    cold_keys: int = 5_000
    key_field: KeyField = KeyField.ADVERTISER
    seconds: float = 3_600.0
    records: int = 20_000_000
    seed: int = 1
    trace: str | None = None
    speed: float = 1.0
    config: dict[str, str | int | float | bool] = {}

    def __post_init__(self) -> None:
        if not 0.0 <= self.hot_share <= 1.0:
            raise ValueError(f"the hot key's share is {self.hot_share}, it must be from 0 to 1")
        if self.producers < 1 or self.records_per_second <= 0 or self.cold_keys < 1 or self.speed <= 0:
            raise ValueError("producers, records per second, cold keys and speed must be above 0")
        if "-" in self.run or not self.run:
            raise ValueError(
                f"the run's name {self.run!r} stands in event ids: it must not be empty or hold '-'"
            )

    def save(self, path: Path) -> None:
        """Write the settings to `path` as JSON."""
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, path: Path) -> LoadSettings:
        """The settings in `path`. Raises `msgspec.ValidationError` when they are none."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


class LoadOptions(TypedDict, total=False):
    """The settings that have a default; `LoadSettings` says what they are."""

    run: str
    producers: int
    records_per_second: float
    hot_key: str
    hot_share: float
    cold_keys: int
    key_field: KeyField
    seconds: float
    records: int
    seed: int
    trace: str | None
    speed: float
    config: dict[str, str | int | float | bool]


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a running producer is told on its standard input, one JSON line each; None leaves it as it is."""

    hot_share: float | None = None
    hot_key: str | None = None
    records_per_second: float | None = None  # of this one producer
    stop: bool = False
