"""What is recorded of a stack in its folder, so that another program finds it again."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from devstack.errors import StackError
from devstack.ports import free_ports, is_free
from devstack.process import ProcessRecord

_PORT_NAMES = (
    *(f"kafka-{node}{role}" for node in (1, 2, 3) for role in ("", "-controller")),
    *("etcd", "etcd-peer", "apiserver", "controller-manager", "redis", "postgres"),
)


class Phase(StrEnum):
    STARTING = "starting"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class Options:
    """What a stack consists of; `redis_url` and `use_cluster` name parts that somebody else runs.

    `busy_brokers`: brokers will have so much to do that they answer late now and then. `broker_session_ms`:
    after how long a silent one counts as dead, where not the usual time.
    """

    brokers: int = 1
    kubernetes: bool = True
    redis: bool = True
    redis_persistent: bool = False
    redis_url: str | None = None
    postgres: bool = False
    controller_manager: bool = False
    use_cluster: str | None = None
    busy_brokers: bool = False
    broker_session_ms: int | None = None

    def __post_init__(self) -> None:
        if self.brokers not in (1, 3):
            raise StackError(f"{self.brokers} brokers were asked for: 1 and 3 are possible")

    def merged(self, other: Options) -> Options:
        """Both together; the last word on what is not a matter of having it is `other`'s."""
        return replace(
            other,
            kubernetes=self.kubernetes or other.kubernetes,
            redis=self.redis or other.redis,
            postgres=self.postgres or other.postgres,
            controller_manager=self.controller_manager or other.controller_manager,
        )


@dataclass(frozen=True)
class State:
    options: Options
    cluster_id: str
    ports: Mapping[str, int]
    tied: bool
    phase: Phase
    owner: ProcessRecord | None = field(default=None)

    @classmethod
    def new(cls, options: Options, *, tied: bool, random_source: random.Random) -> State:
        ports = dict(zip(_PORT_NAMES, free_ports(len(_PORT_NAMES), random_source), strict=True))
        identity = base64.urlsafe_b64encode(uuid.UUID(int=random_source.getrandbits(128)).bytes)
        # A leading dash would be taken for an option by the storage tool.
        cluster_id = "k" + identity.decode().rstrip("=")[1:]
        return cls(options, cluster_id, ports, tied, Phase.DOWN)

    def with_free_ports(self, random_source: random.Random) -> State:
        """The same ports, but for those that somebody else has taken meanwhile."""
        taken = [name for name, port in self.ports.items() if not is_free(port)]
        fresh = dict(zip(taken, free_ports(len(taken), random_source), strict=True))
        return replace(self, ports={**self.ports, **fresh})

    @classmethod
    def read(cls, root: Path) -> State | None:
        path = _path(root)
        try:
            raw = json.loads(path.read_text())
            owner = raw.pop("owner")
            return cls(
                options=Options(**raw.pop("options")),
                phase=Phase(raw.pop("phase")),
                owner=None if owner is None else ProcessRecord(**owner),
                **raw,
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise StackError(
                f"{path} was not written by this version of the dev stack ({error}): check that nothing of "
                f"{root / 'run'} runs any more and remove {root}"
            ) from error

    def write(self, root: Path) -> None:
        path = _path(root)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)


def _path(root: Path) -> Path:
    return root / "stack.json"
