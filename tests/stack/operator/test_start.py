"""An operator that starts before its resources are served, as after a fresh install."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devstack import Stack, crds, tools
from tests.chart.commands import Program
from tests.stack.operator.process import Operator
from tests.stack.operator.scene import ROOT, Scene
from tests.stack.operator.waiting import eventually


@pytest.mark.parametrize("program", ["hotkey_operator", "tests.stack.operator.hasty"])
def test_an_operator_that_starts_before_its_resources_governs_once_they_are_there(
    make_stack: Callable[..., Stack], tmp_path: Path, program: str
) -> None:
    stack = make_stack()
    kubectl = Program(tools.kubectl(), (f"--kubeconfig={stack.kubernetes.kubeconfig}",))
    kubectl("create", "namespace", "early")
    scene = Scene(stack, kubectl, "early", tmp_path)
    operator = Operator(stack, "early", tmp_path)
    operator.program = ("-m", program)
    operator.launch()
    try:
        eventually("it says what it waits for", lambda: operator.told("waiting for the custom resources"))
        (made,) = operator.told("signing key made")
        assert made["secret"] == "early/hotkey-signing-key"
        crds.install(kubectl, ROOT / "crds")
        scene.apply("clicks", {"topic": scene.topic("clicks")})
        scene.wait_for_condition("clicks", "Governing", seconds=30)
        assert "TooManyRequests" not in operator.log()  # what the API server answers while a kind is new
    finally:
        operator.stop()
