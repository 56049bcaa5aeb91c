"""A class archive (AppCDS) that halves a broker's start, made once by running a broker and ending it.

It fits one Java version, one set of flags and one folder of jars. Where Java can make none,
brokers start without it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from devstack.cache import Cache, digest, remove
from devstack.kafka import KafkaAddress, KafkaNode
from devstack.kafka_files import JVM_FLAGS, KafkaFiles, java_version
from devstack.part import Place
from devstack.ports import free_ports
from devstack.progress import Progress

_CLUSTER_ID = "kAAAAAAAAAAAAAAAAAAAAA"
_FILE = "kafka.jsa"


class _TrainingNode(KafkaNode):
    # Writing the archive is part of ending.
    stop_seconds = 120.0


def with_archive(files: KafkaFiles, cache: Cache, progress: Progress) -> KafkaFiles:
    """The same files with an archive, made first when it is not in the cache."""

    def train(folder: Path) -> None:
        with progress.step("preparing a class archive for Kafka (once)"):
            _train(files, folder)

    name = f"kafka-classes-{digest(java_version(), *JVM_FLAGS, str(files.libs))}"
    archive = cache.fill(name, train, progress) / _FILE
    return replace(files, archive=archive) if archive.exists() else files


def _train(files: KafkaFiles, folder: Path) -> None:
    place = Place(folder / "training", tied=True)
    place.make()
    address = KafkaAddress(1, *free_ports(2, random.SystemRandom()))
    training = replace(files, made_archive=folder / _FILE)
    node = _TrainingNode(address, [address], _CLUSTER_ID, training, place)
    try:
        node.start()
    finally:
        node.stop()
        remove(place.root)
