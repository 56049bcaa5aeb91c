"""The jars of Apache Kafka: from KAFKA_HOME, else from Maven, once, into the cache."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Cache, digest
from devstack.errors import StackError
from devstack.process import run
from devstack.progress import Progress
from devstack.versions import KafkaVersions

JVM_FLAGS = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
)

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.hotkeys</groupId>
  <artifactId>devstack-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{scala}</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{log4j_slf4j_impl}</version>
    </dependency>
  </dependencies>
</project>
"""

_LOG4J = """\
status=error
name=devstack
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""


@dataclass(frozen=True)
class KafkaFiles:
    """The jars, the logging configuration, the class archive to use or the one to make."""

    libs: Path
    log4j: Path
    archive: Path | None = None
    made_archive: Path | None = None

    def java(self, arguments: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        """The command line; `flags` of the JVM win over the usual ones."""
        shared = [f"-XX:SharedArchiveFile={self.archive}"] if self.archive else []
        if self.made_archive and arguments[0] == "kafka.Kafka":
            shared = [f"-XX:ArchiveClassesAtExit={self.made_archive}"]
        logging = f"-Dlog4j2.configurationFile={self.log4j}"
        return ["java", *JVM_FLAGS, *flags, *shared, logging, "-cp", f"{self.libs}/*", *arguments]


def pom(versions: KafkaVersions) -> str:
    return _POM.format(
        scala=versions.scala, version=versions.version, log4j_slf4j_impl=versions.log4j_slf4j_impl
    )


def entry(versions: KafkaVersions) -> str:
    return f"kafka-{versions.version}-{digest(pom(versions), _LOG4J)}"


def kafka_home(environment: Mapping[str, str]) -> Path | None:
    """The libs folder of an installed Kafka that KAFKA_HOME names."""
    home = environment.get("KAFKA_HOME")
    if not home:
        return None
    libs = Path(home) / "libs"
    if not list(libs.glob("kafka_*.jar")):
        raise StackError(
            f"KAFKA_HOME is {home}, but {libs} holds no kafka_*.jar: point it at an unpacked Kafka "
            "distribution or unset it"
        )
    return libs


def kafka_files(
    versions: KafkaVersions, cache: Cache, progress: Progress, environment: Mapping[str, str]
) -> KafkaFiles:
    """The files to run Kafka with, downloaded first when they are not in the cache."""

    def download(folder: Path) -> None:
        with progress.step(f"downloading Kafka {versions.version} with Maven"):
            _copy_jars(versions, folder)

    installed = kafka_home(environment)
    log4j = cache.fill(f"kafka-log4j-{digest(_LOG4J)}", _write_log4j, progress) / "log4j2.properties"
    if installed is not None:
        return KafkaFiles(installed, log4j)
    return KafkaFiles(cache.fill(entry(versions), download, progress) / "libs", log4j)


def _write_log4j(folder: Path) -> None:
    (folder / "log4j2.properties").write_text(_LOG4J)


def _copy_jars(versions: KafkaVersions, folder: Path) -> None:
    project = folder / "pom.xml"
    project.write_text(pom(versions))
    plugin = f"org.apache.maven.plugins:maven-dependency-plugin:{versions.maven_dependency_plugin}"
    goal = f"{plugin}:copy-dependencies"
    argv = ["mvn", "-B", "-q", "-C", "-f", str(project), goal, f"-DoutputDirectory={folder / 'libs'}"]
    run(argv, what="downloading Kafka with Maven")
    if not list((folder / "libs").glob("kafka_*.jar")):
        raise StackError("Maven ended well but copied no kafka_*.jar: run it again with an empty cache")


def java_version() -> str:
    """What `java -version` says, as one line."""
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    return " ".join((shown.stderr + shown.stdout).split())
