"""What is recorded of a stack is read back as it was written, ports are free and stay its own."""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from devstack import StackError
from devstack.ports import free_ports, is_free
from devstack.process import ProcessRecord
from devstack.stack import external_redis
from devstack.state import Options, Phase, State


def new_state(options: Options | None = None, seed: int = 1) -> State:
    return State.new(options or Options(), tied=True, random_source=random.Random(seed))


def test_a_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    options = Options(brokers=3, postgres=True, redis_url="redis://127.0.0.1:6379/0")
    state = replace(new_state(options), phase=Phase.UP, owner=ProcessRecord(7, "boot:1", "devstack"))
    state.write(tmp_path)
    assert State.read(tmp_path) == state


def test_a_folder_without_a_stack_has_no_state(tmp_path: Path) -> None:
    assert State.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"phase": "up", "owner": null, "options": {"colour": 1}}'])
def test_a_file_of_another_version_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(StackError, match=r"stack\.json was not written by this version"):
        State.read(tmp_path)


def test_all_ports_are_different_and_below_the_range_of_outgoing_connections() -> None:
    ports = new_state().ports
    assert len(set(ports.values())) == len(ports)
    assert max(ports.values()) < 32_768


def test_a_cluster_id_is_22_characters_and_no_option() -> None:
    ids = {new_state(seed=seed).cluster_id for seed in range(50)}
    assert len(ids) == 50
    assert {(len(each), each[0]) for each in ids} == {(22, "k")}


def test_a_port_that_somebody_else_has_taken_is_replaced_and_no_other() -> None:
    state = new_state()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", state.ports["redis"]))
        taken.listen()
        changed = state.with_free_ports(random.Random(2))
    differing = {name for name, port in changed.ports.items() if port != state.ports[name]}
    assert differing == {"redis"}


def test_a_port_in_use_is_not_free() -> None:
    (port,) = free_ports(1, random.Random(3))
    assert is_free(port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not is_free(port)


def test_options_of_a_second_start_are_added_to_those_of_the_first() -> None:
    first, second = Options(postgres=True), Options(controller_manager=True, redis_persistent=True)
    assert first.merged(second) == Options(postgres=True, controller_manager=True, redis_persistent=True)


def test_redis_url_names_an_external_redis_unless_the_shell_of_a_stack_set_it() -> None:
    url = "redis://127.0.0.1:6379/0"
    assert external_redis({}) is None
    assert external_redis({"REDIS_URL": url}) == url
    assert external_redis({"REDIS_URL": url, "DEVSTACK_REDIS_URL": url}) is None
    assert external_redis({"REDIS_URL": url, "DEVSTACK_REDIS_URL": "redis://127.0.0.1:1/0"}) == url
