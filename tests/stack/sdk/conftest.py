"""A stream of its own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import hotkey_sdk
from devstack import Stack
from tests.sdk_paths import path, pytest_terminal_summary
from tests.stack.sdk.scene import Load, Scene

__all__ = ["path", "pytest_terminal_summary"]


@pytest.fixture
def scene(stack: Stack) -> Iterator[Scene]:
    made = Scene(stack)
    yield made
    made.close()


@pytest.fixture
def start_load(scene: Scene) -> Iterator[Callable[[hotkey_sdk.Producer], Load]]:
    """`start_load(producer)` sends until the end of the test."""
    loads: list[Load] = []

    def start(producer: hotkey_sdk.Producer) -> Load:
        loads.append(Load(scene, producer))
        return loads[-1]

    yield start
    for load in loads:
        load.stop()
