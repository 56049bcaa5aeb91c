"""Imbalance of the records per partition on real Kafka, hotkey beside its alternatives. Part `imbalance`."""

from bench.imbalance.runs import measure
from bench.imbalance.told import goals, headline, plots, section

__all__ = ["goals", "headline", "measure", "plots", "section"]
