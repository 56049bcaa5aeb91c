"""The system that the demo shows: stack, operator, aggregator and loads, started and stopped as one.

It knows by which commands and settings the parts are run, and nothing of what the demo does with them.
"""

from __future__ import annotations

import os
from pathlib import Path

from devstack import Stack, crds
from devstack.state import State
from examples.demo.counts import Counts
from examples.demo.errors import DemoError
from examples.demo.kube import Kube
from examples.demo.program import Program, free_port
from examples.demo.stream import Topic
from examples.load import Load
from examples.load.settings import LoadOptions

ROOT = Path(__file__).resolve().parent.parent.parent
NAMESPACE, SYSTEM_NAMESPACE, SECRET = "ads", "hotkey-system", "hotkey-signing-key"
READY_SECONDS = 60.0


class System:
    """Everything under one folder. `tied`: all processes end with this one, however it ends."""

    def __init__(self, root: Path, *, tied: bool = True, busy_brokers: bool = False) -> None:
        self.root = root
        self.stack = Stack(root, die_with_parent=tied, busy_brokers=busy_brokers)
        self._tied = tied
        self._programs: list[Program] = []
        self._loads: list[Load] = []

    def start(self) -> None:
        """Bring up an empty stack and make the API know hotkey's resources."""
        self._refuse_another()
        self.stack.wipe()
        self.stack.start()
        self.kube = Kube(self.stack.kubernetes.kubeconfig, NAMESPACE)
        crds.install(self.kube.kubectl, ROOT / "crds")
        for namespace in (SYSTEM_NAMESPACE, NAMESPACE):
            self.kube.create_namespace(namespace)

    def _refuse_another(self) -> None:
        """A kept stack is replaced; one that another demo shows right now is not."""
        state = State.read(self.root)
        owner = state.owner if state is not None and state.tied else None
        if owner is not None and owner.is_running and owner.pid != os.getpid():
            raise DemoError(
                f"process {owner.pid} uses {self.root} right now: wait for it, or give another --root"
            )

    def topic(self, name: str, partitions: int) -> Topic:
        """A topic on the stack's Kafka; not yet created."""
        return Topic(self.stack.kafka.bootstrap, name, partitions)

    def start_operator(self) -> Program:
        """`hotkey-operator run`, ready when its signing key is there and it answers its probe."""
        liveness = free_port()
        environment = {
            "KUBECONFIG": str(self.kube.kubeconfig),
            "HOTKEY_KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka.bootstrap,
            "HOTKEY_REDIS_URL": self.stack.redis.url,
            "HOTKEY_SIGNING_SECRET": f"{SYSTEM_NAMESPACE}/{SECRET}",
            "HOTKEY_NAMESPACES": NAMESPACE,
            "HOTKEY_METRICS_PORT": str(free_port()),
            "HOTKEY_LIVENESS_PORT": str(liveness),
        }
        operator = self._run("operator", ["hotkey-operator", "run"], environment)
        operator.wait_for_http(f"http://127.0.0.1:{liveness}/healthz", READY_SECONDS)
        keys = self.kube.wait_for_public_keys(SYSTEM_NAMESPACE, SECRET, READY_SECONDS)
        self.public_keys_file.write_text(keys)
        return operator

    @property
    def public_keys_file(self) -> Path:
        """The public keys of the tables, for producers and consumers."""
        return self.root / "public.keys"

    def start_aggregator(self, topic: str) -> Counts:
        """`hotkey-aggregator run` on one stream, ready when it answers its probe; what it counts."""
        port = free_port()
        flags = {
            "--bootstrap-servers": self.stack.kafka.bootstrap,
            "--topic": topic,
            "--redis-url": self.stack.redis.url,
            "--public-keys": f"file:{self.public_keys_file}",
            "--db": str(self.root / "clicks.duckdb"),
            "--http-port": str(port),
        }
        arguments = ["hotkey-aggregator", "run", *(word for flag in flags.items() for word in flag)]
        aggregator = self._run("aggregator", arguments, {})
        self.counts_url = f"http://127.0.0.1:{port}"
        aggregator.wait_for_http(f"{self.counts_url}/healthz", READY_SECONDS)
        return Counts(self.counts_url)

    def load(self, topic: str, options: LoadOptions) -> Load:
        """A load that follows the stack's tables; not yet started."""
        directory = self.root / f"load-{len(self._loads)}"
        keys = f"file:{self.public_keys_file}"
        load = Load(self.stack.kafka.bootstrap, topic, self.stack.redis.url, keys, directory, **options)
        self._loads.append(load)
        return load

    def _run(self, name: str, arguments: list[str], environment: dict[str, str]) -> Program:
        program = Program(name, self.root, arguments, environment, self._tied)
        program.start()
        self._programs.append(program)
        return program

    def check(self) -> None:
        """Raise `DemoError` when a program of ours is no longer there."""
        for program in self._programs:
            program.check()

    def stop_load(self) -> None:
        """Kill what is left of the loads, as after Ctrl-C."""
        for load in self._loads:
            load.kill()

    def stop(self) -> None:
        """Stop everything, whatever of it runs; the operator before the API server that it watches."""
        self.stop_load()
        for program in reversed(self._programs):
            program.stop()
        self._programs.clear()
        self.stack.stop()
