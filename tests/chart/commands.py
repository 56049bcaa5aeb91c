"""kubectl and helm as a person runs them: the program, a kubeconfig, and what was printed.

Used by the tests of the chart and of the custom resources; knows neither.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SECONDS = 120.0

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Printed:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the arguments that each of its calls begins with."""

    path: Path
    leading: tuple[str, ...] = ()

    def run(self, *arguments: str, stdin: str = "") -> Printed:
        """Run it to its end, whatever the exit code."""
        done = subprocess.run(
            [str(self.path), *self.leading, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return Printed(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What it printed; fails the test with all of it when the exit code is not 0."""
        printed = self.run(*arguments, stdin=stdin)
        assert printed.code == 0, f"{self.path.name} {' '.join(arguments)}\n{printed.out}{printed.err}"
        return printed.out

    def json(self, *arguments: str) -> Any:
        """The answer of a command that can print JSON."""
        return json.loads(self(*arguments, "-o", "json"))


def manifests(text: str) -> list[Manifest]:
    """The objects of a YAML stream, without its empty documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def stream(objects: Iterable[Mapping[str, Any]]) -> str:
    """The objects one after the other, as kubectl reads them."""
    return "\n".join(json.dumps(each) for each in objects)


def only(objects: Iterable[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one object of a kind."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, (
        f"expected one {kind} {name or ''}, found {[o['metadata']['name'] for o in found]}"
    )
    return found[0]
