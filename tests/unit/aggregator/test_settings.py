"""Flags and environment of the command: defaults, precedence, and mistakes told in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from hotkey_aggregator._cli import main
from hotkey_aggregator.command_line import parse
from hotkey_aggregator.events import Reason
from hotkey_aggregator.settings import (
    OWNED_CLIENT_SETTINGS,
    QuerySettings,
    ReplaySettings,
    RunSettings,
    SettingsError,
    read_kafka_config,
)

NEEDED = ["--bootstrap-servers", "127.0.0.1:9092", "--topic", "clicks"]
ANYWHERE = [*NEEDED, "--http-port", "0"]


def run_settings(*flags: str, environment: Mapping[str, str] | None = None) -> RunSettings:
    settings = parse(["run", *NEEDED, *flags], environment or {})
    assert isinstance(settings, RunSettings)
    return settings


def test_brokers_and_a_topic_are_enough() -> None:
    settings = run_settings()
    assert (settings.kafka.group, settings.http_host, settings.limits.seconds) == (
        "hotkey-aggregator.clicks",
        "127.0.0.1",
        5.0,
    )
    assert not [name for name in settings.consumer_config() if name.startswith("hotkey.")]


def test_aggregators_of_two_topics_are_in_groups_of_their_own_and_do_not_fence_each_other() -> None:
    assert run_settings("--topic", "views").kafka.group != run_settings("--topic", "clicks").kafka.group


def test_all_can_come_from_the_environment_and_a_flag_wins() -> None:
    environment = {
        "HOTKEY_AGGREGATOR_BOOTSTRAP_SERVERS": "kafka:9092",
        "HOTKEY_AGGREGATOR_TOPIC": "clicks",
        "HOTKEY_AGGREGATOR_FLUSH_SECONDS": "2.5",
        "HOTKEY_AGGREGATOR_HTTP_PORT": "1234",
        "HOTKEY_AGGREGATOR_ALLOW_UNSIGNED": "true",
    }
    settings = parse(["run", "--http-port", "99"], environment)
    assert isinstance(settings, RunSettings)
    assert (settings.kafka.bootstrap_servers, settings.kafka.topic) == ("kafka:9092", "clicks")
    assert (settings.limits.seconds, settings.http_port, settings.allow_unsigned) == (2.5, 99, True)


@pytest.mark.parametrize("missing", ["--bootstrap-servers", "--topic"])
def test_what_is_missing_is_named_with_its_variable(missing: str) -> None:
    place = NEEDED.index(missing)
    variable = "HOTKEY_AGGREGATOR_" + missing[2:].replace("-", "_").upper()
    with pytest.raises(SettingsError, match=f"{missing} .or {variable}. is missing"):
        parse(["run", *NEEDED[:place], *NEEDED[place + 2 :]], {})


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        parse(["run", "--redis-url", "redis://r"], {})
    assert [line.split()[0] for line in str(raised.value).splitlines()] == [
        "--bootstrap-servers",
        "--topic",
        "--redis-url",
    ]


def test_a_table_is_not_followed_without_keys_unless_asked_for() -> None:
    with pytest.raises(SettingsError, match="--public-keys"):
        run_settings("--redis-url", "redis://127.0.0.1")

    signed = run_settings("--redis-url", "redis://127.0.0.1", "--public-keys", "file:keys").consumer_config()
    unsigned = run_settings("--redis-url", "redis://127.0.0.1", "--allow-unsigned").consumer_config()

    assert (signed["hotkey.public.keys"], signed["hotkey.allow.unsigned"]) == ("file:keys", False)
    assert (unsigned.get("hotkey.public.keys"), unsigned["hotkey.allow.unsigned"]) == (None, True)


@pytest.mark.parametrize(
    "flags",
    [
        ["--http-port", "65536"],
        ["--http-port", "web"],
        ["--flush-seconds", "0"],
        ["--flush-seconds", "nan"],
        ["--max-pending", "0"],
        ["--log-level", "loud"],
        ["--retention", "90"],
        ["--retention", "0d"],
        ["--dedupe-horizon", "a day"],
        ["--group-protocol", "newest"],
    ],
)
def test_a_wrong_value_is_refused_with_the_flag_and_what_was_found(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_settings(*flags)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert flags[0] in told
    assert flags[1] in told


def test_the_kafka_client_is_configured_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "client.properties"
    path.write_text("# TLS\n\nsecurity.protocol = SSL\nssl.key.password=a=b\n")
    settings = run_settings("--kafka-config", str(path))
    assert settings.kafka.kafka_config == {"security.protocol": "SSL", "ssl.key.password": "a=b"}
    assert settings.consumer_config()["security.protocol"] == "SSL"


@pytest.mark.parametrize("name", sorted(OWNED_CLIENT_SETTINGS))
def test_a_client_setting_that_exactness_rests_on_is_refused_with_the_reason(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "client.properties"
    path.write_text(f"{name}=x\n")
    with pytest.raises(SettingsError, match=f"line 1: {name} cannot be set: "):
        read_kafka_config(path)


def test_a_line_that_is_no_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "client.properties"
    path.write_text("security.protocol=SSL\nnonsense\n")
    with pytest.raises(SettingsError, match="line 2: 'nonsense' is not name=value"):
        read_kafka_config(path)


def test_counts_are_in_a_duckdb_file_unless_another_store_is_named() -> None:
    assert run_settings().store.text == "duckdb:hotkey-aggregator.duckdb"
    assert run_settings("--db", "x.duckdb").store.text == "duckdb:x.duckdb"
    assert run_settings("--store", "duckdb:y.duckdb", "--db", "x.duckdb").store.text == "duckdb:y.duckdb"


def test_one_process_has_a_fixed_name_in_its_group_and_many_do_not() -> None:
    one, many = run_settings(), run_settings("--store", "postgresql://h/db")
    assert one.consumer_config("classic")["group.instance.id"] == "hotkey-aggregator"
    assert "group.instance.id" not in many.consumer_config("classic")
    assert many.consumer_config("classic")["partition.assignment.strategy"] == "cooperative-sticky"
    newer = many.consumer_config("consumer")
    assert newer["group.protocol"] == "consumer"
    assert not {"partition.assignment.strategy", "session.timeout.ms"} & newer.keys()


@pytest.mark.parametrize(
    ("flags", "broker_session", "protocol"),
    [
        (["--store", "postgresql://h/db"], 10_000, "consumer"),
        (["--store", "postgresql://h/db"], 45_000, "classic"),
        (["--store", "postgresql://h/db"], None, "classic"),
        (["--store", "postgresql://h/db", "--group-protocol", "consumer"], 45_000, "consumer"),
        (["--store", "postgresql://h/db", "--group-protocol", "classic"], 10_000, "classic"),
        ([], 10_000, "classic"),
    ],
)
def test_the_newer_group_protocol_is_taken_where_it_does_not_hold_a_dead_members_partitions_for_longer(
    flags: list[str], broker_session: int | None, protocol: str
) -> None:
    assert run_settings(*flags).group_protocol_by(broker_session) == protocol


def test_how_long_things_are_kept_is_given_in_days_hours_minutes_or_seconds() -> None:
    keeping = run_settings("--retention", "2d", "--dedupe-horizon", "90m").keeping
    assert (keeping.windows, keeping.ids) == (2 * 86_400_000, 90 * 60_000)
    assert run_settings("--lateness", "500ms").lateness_milliseconds == 500


def test_other_clients_get_what_leads_into_the_cluster_and_nothing_of_the_consumer(tmp_path: Path) -> None:
    path = tmp_path / "client.properties"
    path.write_text("security.protocol=SSL\nfetch.wait.max.ms=7\nsasl.username=me\n")
    settings = run_settings("--kafka-config", str(path))
    shared = settings.kafka.client_config()
    assert (shared["security.protocol"], shared["sasl.username"]) == ("SSL", "me")
    assert "fetch.wait.max.ms" not in shared
    assert settings.consumer_config()["fetch.wait.max.ms"] == "7"


def test_dead_letters_go_to_a_topic_named_after_the_base_unless_told_otherwise() -> None:
    assert run_settings().kafka.dead_letter_topic == "clicks.dead"
    assert run_settings("--dead-letter-topic", "bin").kafka.dead_letter_topic == "bin"


def test_a_replay_takes_a_reason_in_any_case_and_keeps_its_place_in_a_group_of_its_own() -> None:
    settings = parse(["replay", *NEEDED, "--reason", "outofretention", "--limit", "3", "--dry-run"], {})
    assert isinstance(settings, ReplaySettings)
    order = settings.order
    assert (order.base, order.dead, order.group) == (
        "clicks",
        "clicks.dead",
        "hotkey-aggregator.clicks.replay",
    )
    assert (order.reason, order.limit, order.dry_run) == (Reason.OUT_OF_RETENTION, 3, True)


def test_a_password_is_in_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *NEEDED, "--store", "mysql://me:s3cret@h/db"]) == 2
    told = capsys.readouterr().err
    assert "--store is not understood" in told
    assert "s3cret" not in told


def test_a_query_carries_only_what_was_asked() -> None:
    settings = parse(
        ["query", "--url", "http://host:1/", "counts", "--advertiser-id", "a:1", "--limit", "3"], {}
    )
    assert settings == QuerySettings("http://host:1", "counts", {"advertiser_id": "a:1", "limit": "3"})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--topic", "clicks"], 2, "--bootstrap-servers"),
        (
            ["run", *ANYWHERE, "--redis-url", "http://r", "--allow-unsigned"],
            2,
            "--redis-url is not understood",
        ),
        (["run", *ANYWHERE, "--redis-url", "redis://r", "--public-keys", "key"], 2, "--public-keys"),
        (["run", *NEEDED, "--kafka-config", "/absent/file"], 2, "/absent/file cannot be read"),
        (["replay", *NEEDED[:2]], 2, "--topic"),
        (["query", "--url", "http://127.0.0.1:1", "totals"], 1, "Is an aggregator running there?"),
        (["query", "--url", "nonsense", "totals"], 1, "unknown url type"),
    ],
)
def test_a_mistake_ends_with_one_sentence_and_no_stack_trace(
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # the store is made where the command runs
    assert main(arguments) == code
    told = capsys.readouterr().err.splitlines()
    errors = [line for line in told if line.startswith("hotkey-aggregator: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not [line for line in told if "Traceback" in line]


def test_a_schema_of_a_shared_store_is_named_by_a_flag() -> None:
    shared = ["--store", "postgresql://db/clicks"]
    assert run_settings(*shared).store.schema == "hotkey"
    assert run_settings(*shared, "--schema", "clicks_2").store.schema == "clicks_2"


def test_a_schema_without_postgresql_is_a_mistake_that_names_both() -> None:
    with pytest.raises(SettingsError, match=r"--schema other is set, but the store is duckdb:.*Leave it out"):
        run_settings("--schema", "other")


@pytest.mark.parametrize("name", ["", "Clicks", "1a", 'a"b', "a.b", "pg_own", "x" * 64])
def test_what_is_no_name_of_a_schema_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_settings("--store", "postgresql://db/clicks", f"--schema={name}")
    assert "is no schema name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "replay", "query"])
def test_help_says_what_a_command_does_and_what_each_flag_means(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"], {})
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert "HOTKEY_AGGREGATOR_" in told
    described = told.split("options:")[1]
    for flag in re.findall(r"\[(--[a-z-]+)", told.split("options:")[0]):
        assert re.search(rf"{flag}( [A-Z_]+)?\s+\S+", described), flag
