"""Clicks: what one record of the load holds, and how the next one is drawn. Pure; seeds and times come in."""

from __future__ import annotations

import random

import msgspec

from examples.load.settings import KeyField, LoadSettings

USERS = 100_000
REGIONS = 200
ADS_PER_ADVERTISER = 3


class Click(msgspec.Struct, frozen=True, omit_defaults=True):
    """One click as it stands in Kafka. `click_time`: unix milliseconds. `source_id`: the id in a trace."""

    event_id: str
    advertiser_id: str
    ad_id: str
    user_id: str
    click_time: int
    region_id: str | None = None
    source_id: str | None = None

    def key(self, field: KeyField) -> str:
        """The record key: the value of `field`, empty where the click has none."""
        return getattr(self, field.value) or ""

    def dimensions(self) -> dict[str, str]:
        """The dimensions that a policy may spread by."""
        return {"user_id": self.user_id, "region_id": self.region_id or ""}


def event_id(run: str, producer: int, number: int) -> str:
    """The id of a producer's click with this number, counted from 0."""
    return f"{run}-{producer}-{number}"


class ClickMaker:
    """Draws one producer's clicks; `hot_key` and `hot_share` may change between two clicks."""

    def __init__(self, settings: LoadSettings, producer: int) -> None:
        self.hot_key = settings.hot_key
        self.hot_share = settings.hot_share
        self._settings = settings
        self._producer = producer
        self._random = random.Random(settings.seed * 10_007 + producer)

    def draw(self, number: int, at: int) -> Click:
        """The click with this number, clicked `at` (unix milliseconds)."""
        draw = self._random.random
        cold = int(draw() * self._settings.cold_keys)
        value = self.hot_key if draw() < self.hot_share else f"{self._settings.key_field.value[:2]}{cold}"
        user, region = int(draw() * USERS), f"region-{int(draw() * REGIONS)}"
        advertiser = f"adv{cold}"
        ad = f"{advertiser}-{user % ADS_PER_ADVERTISER}"
        match self._settings.key_field:
            case KeyField.ADVERTISER:
                advertiser, ad = value, f"{value}-{user % ADS_PER_ADVERTISER}"
            case KeyField.AD:
                ad = value
            case KeyField.REGION:
                region = value
        name = event_id(self._settings.run, self._producer, number)
        return Click(name, advertiser, ad, f"u{user}", at, region)
