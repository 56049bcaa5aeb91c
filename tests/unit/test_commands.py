"""What holds for every command: it names its version, and an interrupt while it starts is no news."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
COMMANDS = {
    "hotkey-operator": [str(BIN / "hotkey-operator")],
    "hotkey-aggregator": [str(BIN / "hotkey-aggregator")],
    "hotkey_sdk": [sys.executable, "-m", "hotkey_sdk"],
    "kubectl-hotkeys": [str(BIN / "kubectl-hotkeys")],
}
# Stands where the command's parts are loaded, and interrupts itself there as Ctrl-C would.
INTERRUPTED = """\
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {part!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["command", "--version"]
from {module} import main
sys.exit(main())
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_its_version(name: str) -> None:
    done = run(*COMMANDS[name], "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == name


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("hotkey_operator._start", "kopf"),
        ("hotkey_aggregator.__main__", "msgspec"),
        ("hotkey_sdk.__main__", "confluent_kafka"),
        ("hotkey_operator.plugin.__main__", "kubernetes"),
    ],
)
def test_an_interrupt_while_a_command_loads_ends_it_without_a_word(module: str, part: str) -> None:
    script = INTERRUPTED.format(module=module, part=part)
    done = run(sys.executable, "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_the_plugin_starts_without_what_runs_the_operator() -> None:
    script = (
        "import sys, hotkey_operator.plugin._cli\n"
        "print(*{'confluent_kafka', 'kopf', 'redis', 'prometheus_client', 'aiohttp'} & set(sys.modules))"
    )
    done = run(sys.executable, "-c", script)
    assert done.stdout == "\n"
