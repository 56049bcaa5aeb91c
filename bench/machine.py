"""What the figures were measured on: the machine and the versions. It measures nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
import msgspec

from devstack.versions import Versions

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("confluent-kafka", "redis", "kopf", "kubernetes", "duckdb", "msgspec", "xxhash", "cryptography")


class Machine(msgspec.Struct, frozen=True):
    """The machine. `load_average`: of the last minute before the run, in runnable processes."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    load_average: float


def machine() -> Machine:
    """This machine, now."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 0,
        memory_gib=round(pages / 2**30, 1),
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        load_average=round(os.getloadavg()[0], 2),
    )


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    pinned = Versions.pinned()
    found = {
        "hotkey": _commit(),
        "Python": platform.python_version(),
        "librdkafka": confluent_kafka.libversion()[0],
        "Kafka": pinned.kafka.version,
        "Kubernetes": pinned.kubernetes.version,
    }
    return found | {name: version(name) for name in PACKAGES}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
