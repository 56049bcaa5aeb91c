"""Producer and consumer that follow hotkey's routing tables."""

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
