"""`hotkey-operator` that does not wait for its custom resources at first: Kopf looks before they are served.

An API server that goes away between the two, and comes back without them for a moment, makes it so.
"""

from __future__ import annotations

from hotkey_operator import __main__ as command
from hotkey_operator.adapters.kubernetes import Connection
from hotkey_operator.adapters.resources import wait_until_served

_wait = wait_until_served
_waits = iter(range(1_000))


async def _wait_from_the_second_time_on(api: Connection) -> None:
    if next(_waits):
        await _wait(api)


if __name__ == "__main__":
    vars(command)["wait_until_served"] = _wait_from_the_second_time_on
    command.main()
