"""Settings: flags win over the environment, and every mistake is named at once."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hotkey_operator.adapters.sampler import SAMPLING_BYTES_PER_SECOND
from hotkey_operator.settings import Settings, SettingsError, add_flags, read_settings

MINIMAL = {"HOTKEY_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "HOTKEY_REDIS_URL": "redis://redis:6379/0"}


def read(environment: dict[str, str], *flags: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return read_settings(parser.parse_args(flags), environment)


def test_kafka_and_redis_are_all_that_is_needed() -> None:
    settings = read(MINIMAL)
    assert settings.kafka == {"bootstrap.servers": "kafka:9092"}
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.signing_secret[1] == "hotkey-signing-key"
    assert not settings.allow_unsigned
    assert settings.namespaces == ()


def test_a_flag_wins_over_its_environment_variable() -> None:
    environment = {**MINIMAL, "HOTKEY_NAMESPACES": "a,b", "HOTKEY_LIVENESS_PORT": "1"}
    settings = read(
        environment,
        "--kafka-bootstrap-servers",
        "k:1",
        "--namespace",
        "c",
        "--liveness",
        "7",
        "--allow-unsigned",
    )
    assert settings.kafka["bootstrap.servers"] == "k:1"
    assert settings.namespaces == ("c",)
    assert settings.liveness_port == 7
    assert settings.allow_unsigned


def test_namespaces_are_separated_by_commas_or_given_one_by_one() -> None:
    assert read({**MINIMAL, "HOTKEY_NAMESPACES": " ads, shop ,"}).namespaces == ("ads", "shop")
    assert read(MINIMAL, "--namespace", "ads", "--namespace", "shop").namespaces == ("ads", "shop")


def test_the_kafka_file_gives_further_settings_and_the_servers_where_nothing_else_does(
    tmp_path: Path,
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("# TLS\nbootstrap.servers=file:9092\n\nsecurity.protocol = SSL\nsasl.password=a=b\n")
    only_redis = {"HOTKEY_REDIS_URL": "redis://r", "HOTKEY_KAFKA_CONFIG": str(file)}
    expected = {"bootstrap.servers": "file:9092", "security.protocol": "SSL", "sasl.password": "a=b"}
    assert read(only_redis).kafka == expected
    given = read({**only_redis, "HOTKEY_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})
    assert given.kafka == {**expected, "bootstrap.servers": "kafka:9092"}


MISTAKES = {
    "no Kafka": ({"HOTKEY_KAFKA_BOOTSTRAP_SERVERS": ""}, "HOTKEY_KAFKA_BOOTSTRAP_SERVERS"),
    "no Redis": ({"HOTKEY_REDIS_URL": ""}, "HOTKEY_REDIS_URL"),
    "a Redis without a scheme": ({"HOTKEY_REDIS_URL": "redis:6379"}, "'redis:6379'"),
    "a Redis of another scheme": ({"HOTKEY_REDIS_URL": "http://redis"}, "'http://redis'"),
    "a file that is not there": ({"HOTKEY_KAFKA_CONFIG": "/nowhere/x"}, "/nowhere/x"),
    "a port that is none": ({"HOTKEY_METRICS_PORT": "http"}, "HOTKEY_METRICS_PORT: 'http'"),
    "a port that is too high": ({"HOTKEY_LIVENESS_PORT": "65536"}, "65536"),
    "neither yes nor no": ({"HOTKEY_ALLOW_UNSIGNED": "maybe"}, "'maybe'"),
    "a Secret with three parts": ({"HOTKEY_SIGNING_SECRET": "a/b/c"}, "'a/b/c'"),
    "a Secret without a name": ({"HOTKEY_SIGNING_SECRET": "a/"}, "'a/'"),
    "a log level that is none": ({"HOTKEY_LOG_LEVEL": "loud"}, "LOUD"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_named(mistake: str) -> None:
    environment, expected = MISTAKES[mistake]
    with pytest.raises(SettingsError) as raised:
        read({**MINIMAL, **environment})
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--metrics", "http"), "--metrics: 'http'"),
        (("--redis-url", "redis:6379"), "--redis-url: 'redis:6379'"),
        (("--kafka-config", "/nowhere/x"), "--kafka-config: cannot read /nowhere/x"),
        (("--signing-secret", "a/b/c"), "--signing-secret: 'a/b/c'"),
        (("--log-level", "loud"), "--log-level: 'LOUD'"),
    ],
)
def test_a_mistake_in_a_flag_is_named_by_the_flag(flags: tuple[str, str], expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(MINIMAL, *flags)
    assert str(raised.value).startswith(expected)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        read({"HOTKEY_METRICS_PORT": "x"})
    assert len(str(raised.value).splitlines()) == 3


def test_a_broken_line_of_the_kafka_file_is_named_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("a=b\nbroken\n")
    with pytest.raises(SettingsError, match="line 2"):
        read({**MINIMAL, "HOTKEY_KAFKA_CONFIG": str(file)})


def test_a_password_in_the_redis_url_is_not_shown() -> None:
    settings = read({**MINIMAL, "HOTKEY_REDIS_URL": "redis://user:secret@redis/0"})
    assert "secret@" not in repr(settings)


def test_what_metrics_name_can_be_bounded_and_left_out() -> None:
    assert (read(MINIMAL).metrics_partitions, read(MINIMAL).metrics_keys) == (1_000, True)

    settings = read({**MINIMAL, "HOTKEY_METRICS_PARTITIONS": "0", "HOTKEY_METRICS_KEYS": "false"})
    assert (settings.metrics_partitions, settings.metrics_keys) == (0, False)


def test_what_samples_may_take_can_be_bounded() -> None:
    assert read(MINIMAL).sampling_bytes_per_second == SAMPLING_BYTES_PER_SECOND

    settings = read({**MINIMAL, "HOTKEY_SAMPLING_BYTES_PER_SECOND": "500000"})
    assert settings.sampling_bytes_per_second == 500_000


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("HOTKEY_METRICS_PARTITIONS", "many"),
        ("HOTKEY_METRICS_KEYS", "some"),
        ("HOTKEY_SAMPLING_BYTES_PER_SECOND", "4MB"),
        ("HOTKEY_SAMPLING_BYTES_PER_SECOND", "0"),
    ],
)
def test_a_mistake_about_a_number_or_a_choice_is_named(variable: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable}: '{wrong}'"):
        read({**MINIMAL, variable: wrong})
