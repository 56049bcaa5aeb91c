"""The operator, the aggregators and the producers of a soak as parts like those of the stack they run on.

So each can be started, killed, paused and resumed by its pid, and ends with this program however that ends.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import msgspec

from devstack.part import Part, Place
from devstack.process import Command
from examples.load.journal import acked_count
from tests.soak.producer import ProducerSettings, Told, client_id, told_file

ROOT = Path(__file__).parents[2]
ASK_SECONDS = 5.0


def _python_path() -> str:
    """Where our programs find `tests`, before what they are told anyway."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def _answer(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=ASK_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Program(Part):
    """A Python program of ours."""

    stop_seconds = 40.0

    def __init__(self, name: str, place: Place, port: int, environment: Mapping[str, str]) -> None:
        super().__init__(name, place, port)
        self._environment = dict(environment)
        self.starts = 0

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self.starts += 1
        self.prepare()
        self.spawn()


class OperatorProgram(Program):
    """`hotkey-operator run`; `port` answers its liveness probe."""

    def __init__(self, place: Place, port: int, environment: Mapping[str, str]) -> None:
        settings = {"HOTKEY_LIVENESS_PORT": str(port), "HOTKEY_METRICS_PORT": "0"}
        super().__init__("operator", place, port, {**os.environ, **environment, **settings})

    def command(self) -> Command:
        return Command([sys.executable, "-m", "hotkey_operator", "run"], self._environment)

    def probe(self) -> str | None:
        code, body = _answer(f"http://{self.address}/healthz")
        return None if code == 200 else f"{code}: {body.decode(errors='replace')[:300]}"


class AggregatorProgram(Program):
    """`hotkey-aggregator run` with these flags; it reports under another client id after each start."""

    def __init__(self, name: str, place: Place, port: int, orders: Path, flags: Mapping[str, object]) -> None:
        super().__init__(name, place, port, {**os.environ, "PYTHONPATH": _python_path()})
        self._orders, self._flags = orders, dict(flags)

    @property
    def client_id(self) -> str:
        return f"{self.name}-{self.starts}"

    def command(self) -> Command:
        config = self.data / "kafka.properties"
        config.write_text(f"hotkey.client.id={self.client_id}\n")
        flags = {**self._flags, "http-port": self.port, "kafka-config": config}
        leading = [sys.executable, "-m", "tests.soak.aggregator", str(self._orders), self.name, "run"]
        return Command([*leading, *(f"--{name}={value}" for name, value in flags.items())], self._environment)

    def probe(self) -> str | None:
        code, body = _answer(f"http://{self.address}/readyz")
        return None if code == 200 else f"{code}: {body.decode(errors='replace')[:300]}"

    def metrics(self) -> Mapping[str, float]:
        """The plain values that it measures of itself; none while it does not answer."""
        try:
            _, body = _answer(f"http://{self.address}/metrics")
        except OSError:
            return {}
        lines = (line.split() for line in body.decode().splitlines() if not line.startswith("#"))
        return {words[0]: float(words[1]) for words in lines if len(words) == 2 and "{" not in words[0]}


class ProducerProgram(Program):
    """A producer's place; each start in it is a producer with a number of its own."""

    def __init__(self, name: str, place: Place, settings: Path) -> None:
        super().__init__(name, place, 0, {**os.environ, "PYTHONPATH": _python_path()})
        self._settings_file = settings
        self.number = -1
        self._numbers: list[int] = []

    def begin(self, number: int) -> None:
        """Start a producer under this number, which was never used; wait for nothing."""
        self.number = number
        self._numbers.append(number)
        self.launch()

    @property
    def settings(self) -> ProducerSettings:
        return msgspec.json.decode(self._settings_file.read_bytes(), type=ProducerSettings)

    @property
    def client_id(self) -> str:
        return client_id(self.settings.run, self.number)

    def command(self) -> Command:
        module = ["-m", "tests.soak.producer", str(self._settings_file), str(self.number), self.name]
        return Command([sys.executable, *module], self._environment)

    def probe(self) -> str | None:
        return None if acked_count(Path(self.settings.folder), self.number) else "no acknowledgement yet"


def told(folder: Path, number: int) -> Told:
    """What a producer tells of itself; nothing before its first word."""
    try:
        return msgspec.json.decode(told_file(folder, number).read_bytes(), type=Told)
    except FileNotFoundError:
        return Told()
