"""Programs that are built from published Go modules, once, into the cache.

The build is a module of our own (a folder with go.mod and go.sum) that only requires what others publish. Its
module and build caches, some GB, live beside the result and are gone when it is there. It must not know what
the programs are for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Cache, digest
from devstack.process import run
from devstack.progress import Progress, Step

_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")


@dataclass(frozen=True)
class GoModule:
    """A module and how its programs are compiled.

    `mains` and `versions`: the package and the version of each program. `title`: what it is, `takes`: how
    long the build takes, both for people. `is_optimised` False: a third less to build, for programs that have
    little to do.
    """

    name: str
    folder: Path
    title: str
    takes: str
    mains: Mapping[str, str]
    versions: Mapping[str, str]
    tags: str
    linker_flags: str = "-s -w"
    is_optimised: bool = True

    def key(self) -> str:
        """Changes with go.mod, go.sum and every flag of the build."""
        module = [(self.folder / name).read_bytes() for name in ("go.mod", "go.sum")]
        target = [os.environ.get(name, "") for name in ("GOOS", "GOARCH")]
        return digest(*module, *_FLAGS, self.tags, self.linker_flags, *target, *self._compiler_flags())

    def entry(self, program: str) -> str:
        """The program's entry in the cache."""
        return f"{program}-{self.versions[program]}-{self.key()}"

    def cached(self, cache: Cache, programs: Sequence[str]) -> dict[str, Path] | None:
        """Where the programs are when all of them are in the cache."""
        folders = {name: cache.find(self.entry(name)) for name in programs}
        found = {name: folder / name for name, folder in folders.items() if folder is not None}
        return found if len(found) == len(programs) else None

    def made(self, cache: Cache, progress: Progress, programs: Sequence[str]) -> dict[str, Path]:
        """Where the programs are, those that are missing built first."""
        found = self.cached(cache, programs)
        if found is not None:
            return found
        lock = f"{self.name}-{self.key()}"
        with cache.lock(lock, progress):
            missing = [name for name in programs if cache.find(self.entry(name)) is None]
            if missing:
                with cache.workspace(lock) as folder:
                    self._build(missing, folder, progress)
                    for name in missing:
                        cache.publish(folder / "out" / name, self.entry(name))
        found = self.cached(cache, programs)
        assert found is not None
        return found

    def _compiler_flags(self) -> tuple[str, ...]:
        return () if self.is_optimised else ("-gcflags=all=-N -l",)

    def _build(self, programs: Sequence[str], folder: Path, progress: Progress) -> None:
        environment = {
            **os.environ,
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
            "GOGC": "800",
            "GOFLAGS": " ".join((*_FLAGS, "-modcacherw")),
            "GOMODCACHE": str(folder / "modules"),
            "GOCACHE": str(folder / "objects"),
            "GOTMPDIR": str(folder / "scratch"),
        }
        (folder / "scratch").mkdir()
        mains = [self.mains[name] for name in programs]
        with progress.step(f"downloading the Go modules of {self.title}"):
            packages = run(
                ["go", "list", "-deps", "-tags", self.tags, *mains],
                what=f"downloading the Go modules of {self.title}",
                environment=environment,
                folder=self.folder,
            )
        total = sum(" " not in line for line in packages.splitlines())
        progress.say(f"building {', '.join(programs)} from source: only this once, {self.takes}")
        with progress.step("Go packages compiled") as step:
            self._compile(programs, folder, environment, _Counter(step, total))

    def _compile(
        self, programs: Sequence[str], folder: Path, environment: Mapping[str, str], counter: _Counter
    ) -> None:
        compiled = folder / "bin"
        compiled.mkdir()
        flags = ["-v", "-tags", self.tags, "-ldflags", self.linker_flags, *self._compiler_flags()]
        run(
            ["go", "build", *flags, "-o", f"{compiled}/", *(self.mains[name] for name in programs)],
            what=f"building {self.title}",
            environment=environment,
            folder=self.folder,
            on_line=counter.line,
        )
        for name in programs:
            place = folder / "out" / name
            place.mkdir(parents=True)
            (compiled / _compiled_name(self.mains[name])).rename(place / name)


def _compiled_name(main: str) -> str:
    """Go names a program after the last element of its path that is no version: etcd's is `server`."""
    return next(part for part in reversed(main.split("/")) if not re.fullmatch(r"v\d+", part))


class _Counter:
    """`go build -v` prints a line for each package that it has compiled."""

    def __init__(self, step: Step, total: int) -> None:
        self._step = step
        self._total = total
        self._done = 0

    def line(self, text: str) -> None:
        if " " not in text:
            self._done += 1
            self._step.at(min(self._done, self._total), self._total)
