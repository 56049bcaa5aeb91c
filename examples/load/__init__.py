"""A click load on real producers, whose every sent and acknowledged event id stands in a file.

It knows the SDK's producer and nothing of the operator, the aggregator or the dev stack.
"""

from examples.load.fleet import Load, LoadError
from examples.load.proof import Proof, prove
from examples.load.settings import LoadSettings

__all__ = ["Load", "LoadError", "LoadSettings", "Proof", "prove"]
