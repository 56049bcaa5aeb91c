"""Producer and consumer that follow hotkey's routing tables.

A name is loaded when it is first used: who imports `hotkey_sdk.routing` alone gets no Kafka client with it.
"""

import typing
from importlib import import_module

if typing.TYPE_CHECKING:
    from hotkey_sdk._consumer import Consumer, ConsumerReading
    from hotkey_sdk._producer import Producer, ProducerRouting
    from hotkey_sdk._settings import SettingsError
    from hotkey_sdk._stats import ConsumerStats, ProducerStats, SourceStats, TableStats

__version__ = "0.1.0"

__all__ = [
    "Consumer",
    "ConsumerReading",
    "ConsumerStats",
    "Producer",
    "ProducerRouting",
    "ProducerStats",
    "SettingsError",
    "SourceStats",
    "TableStats",
]

_HOMES = {
    **dict.fromkeys(("Consumer", "ConsumerReading"), "_consumer"),
    **dict.fromkeys(("Producer", "ProducerRouting"), "_producer"),
    "SettingsError": "_settings",
    **dict.fromkeys(("ConsumerStats", "ProducerStats", "SourceStats", "TableStats"), "_stats"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
