"""What a policy's daemon is given where neither Kopf nor a Kubernetes API runs."""

from __future__ import annotations

import asyncio

from kubernetes import client

from hotkey_operator.adapters.kubernetes import KubernetesTables


class Running:
    """The flag that Kopf hands to a daemon, never set."""

    def __bool__(self) -> bool:
        return False

    async def wait(self, timeout: float | None = None) -> bool:
        await asyncio.sleep(timeout or 0.0)
        return False


def an_api_that_is_away() -> KubernetesTables:
    settings = client.Configuration(host="http://127.0.0.1:1")
    settings.retries = False
    return KubernetesTables(client.ApiClient(settings))
