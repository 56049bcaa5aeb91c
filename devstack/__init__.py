"""Real Kafka, Kubernetes API, Valkey and PostgreSQL as local processes, for the demo and the tests.

It knows nothing of hotkey: no topic, policy or routing table is made here, and nothing of the three
distributions is imported.
"""

from devstack.errors import StackError
from devstack.stack import Stack

__all__ = ["Stack", "StackError"]
