"""The whole stack: what it consists of, started side by side, found again and cleared.

with Stack(folder) as stack:
    stack.kafka.bootstrap, stack.kubernetes.kubeconfig, stack.redis.url
    stack.kafka.nodes[0].kill()
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from devstack.assembly import Parts
from devstack.cache import Cache, remove
from devstack.errors import StackError
from devstack.kafka import Kafka
from devstack.kubernetes import ExternalKubernetes, Kubernetes
from devstack.part import Place, together
from devstack.postgres import Postgres
from devstack.process import ProcessRecord
from devstack.programs import Programs, fetch
from devstack.progress import Progress
from devstack.state import Options, Phase, State
from devstack.valkey import ExternalRedis, Valkey

# Tells a stack that REDIS_URL was set by `devstack shell` and names no Redis of somebody else's.
_OWN_REDIS = "DEVSTACK_REDIS_URL"


class Stack:
    """Real parts as local processes on free ports of 127.0.0.1; all files under `root`.

    `die_with_parent` ties the processes to this program (tests); without it they stay (`up`).
    `environment` is asked for KUBEBUILDER_ASSETS, KAFKA_HOME and REDIS_URL, the process's by default.
    `redis_persistent` makes Valkey keep its data over a kill. `use_cluster` is the kubeconfig of a
    cluster to use instead of starting one. `busy_brokers` have memory for thousands of partitions and
    do not lose their session when they answer late; a killed one is missed later, or after
    `broker_session_ms`. Starting raises StackError; what it began is stopped then.
    """

    def __init__(
        self,
        root: Path,
        *,
        brokers: int = 1,
        kubernetes: bool = True,
        redis: bool = True,
        postgres: bool = False,
        controller_manager: bool = False,
        die_with_parent: bool = True,
        redis_persistent: bool = False,
        use_cluster: Path | None = None,
        busy_brokers: bool = False,
        broker_session_ms: int | None = None,
        environment: Mapping[str, str] | None = None,
        cache: Cache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.root = root.absolute()
        self._environment = os.environ if environment is None else environment
        self._options = Options(
            brokers=brokers,
            kubernetes=kubernetes,
            redis=redis,
            redis_persistent=redis_persistent,
            redis_url=external_redis(self._environment) if redis else None,
            postgres=postgres,
            controller_manager=controller_manager,
            use_cluster=None if use_cluster is None else str(use_cluster.absolute()),
            busy_brokers=busy_brokers,
            broker_session_ms=broker_session_ms,
        )
        self.cache = cache or Cache()
        self._progress = progress or Progress()
        self._place = Place(self.root, die_with_parent)
        self._random = random.SystemRandom()
        self._parts: Parts | None = None

    @classmethod
    def attach(cls, root: Path) -> Stack:
        """The stack that an earlier program started; StackError when there is none."""
        state = State.read(root)
        if state is None:
            raise StackError(f"there is no stack in {root}: start one with `python -m devstack up`")
        stack = cls(root, die_with_parent=state.tied)
        stack._options = state.options
        stack._parts = Parts.of(state, stack._place, Programs.unknown())
        return stack

    @property
    def parts(self) -> Parts:
        if self._parts is None:
            raise StackError("the stack was not started: call start() first")
        return self._parts

    @property
    def kafka(self) -> Kafka:
        return self.parts.kafka

    @property
    def kubernetes(self) -> Kubernetes | ExternalKubernetes:
        return self.parts.kubernetes or _absent("kubernetes")

    @property
    def redis(self) -> Valkey | ExternalRedis:
        return self.parts.redis or _absent("redis")

    @property
    def postgres(self) -> Postgres:
        return self.parts.postgres or _absent("postgres")

    @property
    def options(self) -> Options:
        return self._options

    def settings(self) -> dict[str, str]:
        """Environment variables for programs that use the stack."""
        parts = self.parts
        found = {"KAFKA_BOOTSTRAP": parts.kafka.bootstrap}
        if parts.kubernetes is not None:
            found["KUBECONFIG"] = str(parts.kubernetes.kubeconfig)
        if parts.redis is not None:
            found["REDIS_URL"] = parts.redis.url
        if isinstance(parts.redis, Valkey):
            found[_OWN_REDIS] = parts.redis.url
        if parts.postgres is not None:
            found["DATABASE_URL"] = parts.postgres.dsn
        return found

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def fetch(self) -> Programs:
        """Downloads and builds what is not in the cache (minutes the first time); starts nothing.

        Raises StackError that names the missing tools, before anything is done.
        """
        return fetch(self._options, self.cache, self._environment, self._progress)

    def start(self) -> None:
        """Starts what does not run yet; blocks until all of it serves."""
        self._merge_recorded_options()
        programs = self.fetch()
        with self._locked():
            recorded = State.read(self.root)
            state = self._claim()
            state.write(self.root)
            self._parts = Parts.of(state, self._place, programs)
            before = recorded.options if recorded else replace(self._options, use_cluster=None)
            self._start_parts(state, self._parts, before)

    def _start_parts(self, state: State, parts: Parts, before: Options) -> None:
        """Starts what is down; what fails is stopped again, and not recorded as asked for."""
        down = [part for part in parts.processes if not part.is_running]
        names = ", ".join(part.name for part in down)
        if not down:
            self._progress.say("all of it is running already")
        self._place.closing.clear()
        try:
            with self._progress.step(f"starting {names}") if down else nullcontext():
                together(parts.starts)
        except BaseException:
            self._place.closing.set()
            together([part.stop for part in down])
            ran_before = len(down) < len(parts.processes)
            phase = Phase.UP if ran_before else Phase.DOWN
            replace(state, options=before, phase=phase).write(self.root)
            raise
        replace(state, phase=Phase.UP).write(self.root)

    def stop(self) -> None:
        """Ends every process of the stack; data and logs stay."""
        with self._locked():
            state = State.read(self.root)
            if state is not None:
                self._stop_all(state)

    def wipe(self) -> None:
        """Ends every process and removes data and logs."""
        self.stop()
        remove(self.root)

    def _stop_all(self, state: State) -> None:
        self._place.closing.set()
        if self._parts is not None:
            together(self._parts.stops)
        clear(self.root)
        replace(state, phase=Phase.DOWN, owner=None).write(self.root)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time in a folder."""
        self._place.make()
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress.say(f"waiting for another start or stop of the stack in {self.root}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _claim(self) -> State:
        """The state to start from: what runs on is kept, what a crash left is cleared."""
        tied = self._place.tied
        state = State.read(self.root)
        if state is None:
            state = State.new(self._options, tied=tied, random_source=self._random)
        elif not self._is_ours(state):
            for name in clear(self.root):
                self._progress.say(f"cleared what an earlier run had left: {name}")
            state = state.with_free_ports(self._random)
        owner = ProcessRecord.of(os.getpid(), "devstack")
        return replace(state, options=self._options, phase=Phase.STARTING, tied=tied, owner=owner)

    def _merge_recorded_options(self) -> None:
        """Adds what the stack in this folder consists of already."""
        state = State.read(self.root)
        if state is None:
            return
        has, asked = state.options.brokers, self._options.brokers
        if has != asked:
            raise StackError(
                f"the stack in {self.root} was made with --brokers {has}, {asked} were asked for: "
                f"keep {has}, or begin anew after `python -m devstack down --wipe`"
            )
        self._options = state.options.merged(self._options)

    def _is_ours(self, state: State) -> bool:
        """Whether what runs is to be kept. StackError when it belongs to another living program."""
        if state.phase is Phase.DOWN:
            return False
        if not state.tied:
            return state.phase is Phase.UP
        if state.owner is None or not state.owner.is_running:
            return False
        if state.owner.pid == os.getpid():
            return True
        raise StackError(
            f"the stack in {self.root} belongs to process {state.owner.pid}, which still runs: wait for it, "
            "or use another folder"
        )


def external_redis(environment: Mapping[str, str]) -> str | None:
    """REDIS_URL, unless it is the one that `devstack shell` has set for a stack of our own."""
    url = environment.get("REDIS_URL") or None
    return None if url == environment.get(_OWN_REDIS) else url


def clear(root: Path) -> list[str]:
    """Kills what is recorded under `root` and still runs; the names of what was killed."""
    cleared = []
    for path in sorted((root / "run").glob("*.json")):
        record = ProcessRecord.read(path)
        if record is not None and record.is_running:
            record.kill()
            cleared.append(path.stem)
        path.unlink(missing_ok=True)
    return cleared


def _absent(name: str) -> NoReturn:
    raise StackError(f"this stack was made without {name}: pass {name}=True")
