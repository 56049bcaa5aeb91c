"""Custom resource definitions on an API server: applied, and waited for until it serves them.

It takes whatever runs kubectl, so that the demo and each test fail in their own words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devstack.errors import StackError

LOOK_SECONDS = 0.1


def install(kubectl: Callable[..., str], folder: Path, seconds: float = 30.0) -> None:
    """Apply the definitions of a folder, and return when all of them are served.

    `kubectl wait --for=condition=Established` does for people. Within a moment of the apply it ends with an
    error instead of waiting: a new definition has no list of conditions yet.

    Args:
        kubectl: runs kubectl with the arguments it is given and returns what was printed.
        folder: of manifests, which hold definitions only.
        seconds: how long they may take.

    Raises:
        StackError: they are not all served by then.
    """
    kubectl("apply", "-f", str(folder))
    deadline = time.monotonic() + seconds
    while waiting := _not_served(json.loads(kubectl("get", "-f", str(folder), "-o", "json"))):
        if time.monotonic() > deadline:
            raise StackError(f"not served after {seconds:.0f} s: {', '.join(waiting)}")
        time.sleep(LOOK_SECONDS)


def _not_served(found: Mapping[str, Any]) -> list[str]:
    definitions = found.get("items", [found])
    return [each["metadata"]["name"] for each in definitions if not _is_served(each.get("status", {}))]


def _is_served(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
