"""hotkey's aggregator: exactly-once counts of clicks that follow the routing table."""

__version__ = "0.1.0"
