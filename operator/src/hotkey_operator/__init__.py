"""hotkey's operator: senses hot Kafka keys, plans their spread and publishes the routing table."""

__version__ = "0.1.0"
