"""Whether the API server serves our kinds yet.

Kopf looks for them once, when it starts. An operator that began earlier (the CRDs are applied after it, or
the API server just restarted) would see no policy for as long as it lives, and look healthy.
"""

from __future__ import annotations

import asyncio
import logging

from kopf._cogs.structs.references import Insights
from kubernetes import client
from urllib3.exceptions import HTTPError

from hotkey_operator import logs
from hotkey_operator.adapters.kubernetes import GROUP, POLICIES, TABLES, VERSION, Connection

RETRY_SECONDS = 1.0
INITIALIZING_TRIES = 10  # a second each; what answers so for longer has another reason, which Kopf tells
_TOO_MANY_REQUESTS = 429  # what the API server answers while it makes room for a kind that is new
_TIMEOUT_SECONDS = 5.0


async def wait_until_served(api: Connection) -> None:
    """Return once both kinds are listed; says once what it waits for."""
    told = False
    while (missing := await asyncio.to_thread(_missing, api)) is not None:
        if not told:
            logs.say(
                "waiting for the custom resources",
                level=logging.WARNING,
                group=f"{GROUP}/{VERSION}",
                reason=missing,
                remedy="kubectl apply -f crds, or helm install with crds.enabled",
            )
            told = True
        await asyncio.sleep(RETRY_SECONDS)
    for _ in range(INITIALIZING_TRIES):
        if not await asyncio.to_thread(_is_initializing, api):
            break
        await asyncio.sleep(RETRY_SECONDS)


async def end_where_unserved(found: Insights, unserved: asyncio.Event) -> None:
    """Set `unserved` where Kopf has looked for our kinds and found no policies: it never looks again.

    An API server that went away after `wait_until_served`, and comes back without them for its first
    seconds, makes it so.
    """
    await found.ready_resources.wait()
    if all(resource.plural != POLICIES for resource in found.watched_resources):
        logs.say("custom resources were not served when they were looked for", then="looking again")
        unserved.set()


def _is_initializing(api: Connection) -> bool:
    """Whether a kind that is served already cannot be listed yet. Any other answer is for others to tell."""
    try:
        for plural in (POLICIES, TABLES):
            client.CustomObjectsApi(api).list_cluster_custom_object(
                GROUP, VERSION, plural, limit=1, _request_timeout=_TIMEOUT_SECONDS
            )
    except (client.ApiException, HTTPError, OSError) as error:
        # urllib3 tries such an answer again by itself, and gives up with these words.
        given_up = f"too many {_TOO_MANY_REQUESTS} error responses" in str(error)
        return given_up or getattr(error, "status", None) == _TOO_MANY_REQUESTS
    return False


def _missing(api: Connection) -> str | None:
    try:
        served = client.CustomObjectsApi(api).get_api_resources(
            GROUP, VERSION, _request_timeout=_TIMEOUT_SECONDS
        )
    except (client.ApiException, HTTPError, OSError) as error:
        return str(getattr(error, "reason", None) or error)
    names = {resource.name for resource in served.resources}
    missing = sorted({POLICIES, TABLES} - names)
    return f"{', '.join(missing)} not served" if missing else None
