"""Real Kafka, Kubernetes API, Valkey and PostgreSQL as local processes, for the demo and the tests.

It knows nothing of hotkey: no topic, policy or routing table is made here, and nothing of the three
distributions is imported.
"""

import sys

from devstack.errors import StackError

try:
    from devstack.stack import Stack
except ModuleNotFoundError as missing:
    if sys.argv[0] != "-m":
        raise
    sys.exit(f"{missing}: run `make venv` once, then `.venv/bin/python -m devstack`")

__all__ = ["Stack", "StackError"]
