"""Free ports on 127.0.0.1 that stay free while a part is down.

They lie below the range from which Linux takes the ports of outgoing connections: a client that
keeps asking for a killed broker would otherwise get the broker's own port sooner or later.
"""

from __future__ import annotations

import random
import socket

from devstack.errors import StackError

_FIRST, _LAST = 20_000, 32_000
_TRIES = 500


def free_ports(count: int, random_source: random.Random) -> list[int]:
    """Different ports on which nothing listens now."""
    found: list[int] = []
    for _ in range(_TRIES):
        if len(found) == count:
            return found
        port = random_source.randint(_FIRST, _LAST)
        if port not in found and is_free(port):
            found.append(port)
    raise StackError(f"no {count} free ports found between {_FIRST} and {_LAST} on 127.0.0.1")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
