"""One producer process of the imbalance part: `hotkey_sdk.Producer` with a live load, then its drawn records.

Run as `python -m bench.imbalance.sender SETTINGS`. It sends live until it reads the line `pause`, answers
`paused` when every record is acknowledged, sends its drawn records as fast as it can at the line `send`,
answers `sent`, and ends at the end of its input, so it never outlives who started it.
"""

from __future__ import annotations

import random
import select
import sys
import time
from collections.abc import Sequence

import msgspec

from bench.imbalance.draws import Mix, Users, cumulated, records
from examples.load.producer import Schedule
from hotkey_sdk import Producer

TICK_SECONDS = 0.005
FLUSH_SECONDS = 120.0
CHUNK = 10_000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one producer sends. `live_rate`: records/s of this one; `count`: records of all together."""

    bootstrap: str
    topic: str
    redis_url: str
    public_keys: str
    mix: Mix
    number: int
    producers: int
    live_rate: float
    count: int
    seed: int


class Sender:
    """The producer and what it draws."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._drawn = records(
            settings.mix, settings.count, settings.number, settings.producers, settings.seed
        )
        name = f"{settings.seed}/users/{settings.number}"
        self._users = Users(settings.mix.zipf, name)
        self._chance = random.Random(f"{name}/live")
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "client.id": f"sender-{settings.number}",
                "linger.ms": 5,
                "compression.type": "lz4",
                "log_level": 0,
                "hotkey.redis.url": settings.redis_url,
                "hotkey.public.keys": settings.public_keys,
                "hotkey.client.id": f"sender-{settings.number}",
            }
        )

    def live(self) -> None:
        """Send at the live rate until something is to be read."""
        schedule, mix = Schedule(self._settings.live_rate, time.monotonic()), self._settings.mix
        weights, keys = cumulated(mix.parts), range(len(mix.keys))
        while not select.select([sys.stdin], [], [], 0)[0]:
            due = schedule.due(time.monotonic())
            self._send(self._chance.choices(keys, cum_weights=weights, k=due))
            self._producer.poll(TICK_SECONDS)

    def send(self) -> None:
        """Send the drawn records."""
        for start in range(0, len(self._drawn), CHUNK):
            self._send(self._drawn[start : start + CHUNK])

    def _send(self, drawn: Sequence[int]) -> None:
        topic, keys, produce = self._settings.topic, self._settings.mix.keys, self._producer.produce
        for key, number in zip(drawn, self._users.draw(len(drawn)), strict=True):
            user = f"u{number}"
            value = f'{{"user_id":"{user}"}}'
            while True:
                try:
                    produce(topic, value, keys[key], dimensions={"user_id": user})
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self._producer.poll(0)

    def answer(self, word: str) -> None:
        """Wait for every acknowledgement, then say so."""
        if left := self._producer.flush(FLUSH_SECONDS):
            raise SystemExit(f"{left} records were not answered within {FLUSH_SECONDS:.0f} s")
        print(word, flush=True)


def main() -> None:
    """Live, pause, send, end."""
    sender = Sender(msgspec.json.decode(sys.argv[1], type=Settings))
    sender.live()
    if sys.stdin.readline():
        sender.answer("paused")
    if sys.stdin.readline():
        sender.send()
        sender.answer("sent")
    sys.stdin.read()


if __name__ == "__main__":
    main()
