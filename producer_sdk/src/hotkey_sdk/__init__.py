"""Producer and consumer that follow hotkey's routing tables."""

__version__ = "0.1.0"
