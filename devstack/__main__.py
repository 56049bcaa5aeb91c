"""`python -m devstack up|fetch|down|status|logs|shell|env`: the stack for a person at a terminal."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack import prometheus
from devstack.errors import StackError
from devstack.process import tail
from devstack.stack import Stack
from devstack.state import State

DEFAULT_ROOT = Path(__file__).parent.parent / ".devstack"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    top.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder for data and logs (%(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what does not run yet")
    up.add_argument("--brokers", type=int, choices=(1, 3), help="Kafka nodes (1)")
    up.add_argument("--postgres", action="store_true", help="PostgreSQL too")
    up.add_argument("--controller-manager", action="store_true", help="kube-controller-manager too")
    up.add_argument("--redis-persistent", action="store_true", help="Valkey keeps its data over a restart")
    up.add_argument("--use-cluster", type=Path, metavar="KUBECONFIG", help="a Kubernetes that is there")
    fetch = commands.add_parser(
        "fetch", help="only fill the cache: downloads and the build of the API server"
    )
    fetch.add_argument("--controller-manager", action="store_true", help="kube-controller-manager too")
    fetch.add_argument("--prometheus", action="store_true", help="promtool and Prometheus, for tests, too")
    down = commands.add_parser("down", help="stop all of it; data and logs stay")
    down.add_argument("--wipe", action="store_true", help="remove data and logs too")
    commands.add_parser("status", help="what runs and where; exit code 1 unless all of it does")
    logs = commands.add_parser("logs", help="show a part's log")
    logs.add_argument("name", help="a name that status shows")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("-n", "--lines", type=int, default=100, help="how many (%(default)s)")
    commands.add_parser("shell", help="a shell with KUBECONFIG, KAFKA_BOOTSTRAP and REDIS_URL set")
    commands.add_parser("env", help='the same as exports: eval "$(python -m devstack env)"')
    return top


def up(arguments: argparse.Namespace) -> int:
    recorded = State.read(arguments.root)
    stack = Stack(
        arguments.root,
        brokers=arguments.brokers or (recorded.options.brokers if recorded else 1),
        postgres=arguments.postgres,
        controller_manager=arguments.controller_manager,
        redis_persistent=arguments.redis_persistent,
        use_cluster=arguments.use_cluster,
        die_with_parent=False,
    )
    stack.start()
    print(look_around(stack))
    return 0


def fetch(arguments: argparse.Namespace) -> int:
    stack = Stack(arguments.root, controller_manager=arguments.controller_manager)
    stack.fetch()
    if arguments.prometheus:
        prometheus.fetch(stack.cache)
    print(f"everything that the stack needs is in {stack.cache.folder}")
    return 0


def _running(root: Path) -> list[str]:
    if State.read(root) is None:
        return []
    return [part.name for part in Stack.attach(root).parts.processes if part.is_running]


def look_around(stack: Stack) -> str:
    """What to type next."""
    lines = [f"Kafka       {stack.kafka.bootstrap}   (cluster {stack.kafka.cluster_id})"]
    if stack.parts.kubernetes is not None:
        config = shlex.quote(str(stack.parts.kubernetes.kubeconfig))
        lines.append(f"Kubernetes  kubectl --kubeconfig {config} get namespaces")
    if stack.parts.redis is not None:
        lines.append(f"Redis       {stack.parts.redis.url}")
    if stack.parts.postgres is not None:
        lines.append(f"PostgreSQL  {stack.parts.postgres.dsn}")
    root = "" if stack.root == DEFAULT_ROOT else f" --root {shlex.quote(str(stack.root))}"
    module = f"{shlex.quote(sys.executable)} -m devstack{root}"
    lines += [
        f"Logs        {stack.root / 'logs'}   ({module} logs kafka)",
        f'Settings    eval "$({module} env)"   or   {module} shell',
        f"Stop        {module} down",
    ]
    return "\n".join(lines)


def down(arguments: argparse.Namespace) -> int:
    if State.read(arguments.root) is None:
        print(f"there is no stack in {arguments.root}")
        return 0
    stack = Stack.attach(arguments.root)
    running = _running(arguments.root)
    if arguments.wipe:
        stack.wipe()
    else:
        stack.stop()
    print(f"stopped {', '.join(running)}" if running else "nothing was running")
    return 0


def status(arguments: argparse.Namespace) -> int:
    stack = Stack.attach(arguments.root)
    for part in stack.parts.processes:
        record = part.record
        state = "running" if part.is_running else "stopped"
        pid = str(record.pid) if record is not None and part.is_running else "-"
        print(f"{part.name:20} {state:8} {pid:>8}  {part.address:16} {part.log}")
    for name, place in _external(stack).items():
        print(f"{name:20} {'external':8} {'-':>8}  {place}")
    return 0 if all(part.is_running for part in stack.parts.processes) else 1


def _external(stack: Stack) -> dict[str, str]:
    options = stack.options
    found = {"redis": options.redis_url, "kubernetes": options.use_cluster}
    return {name: place for name, place in found.items() if place is not None}


def logs(arguments: argparse.Namespace) -> int:
    stack = Stack.attach(arguments.root)
    logs = {part.name: part.log for part in stack.parts.processes}
    if arguments.name not in logs:
        raise StackError(f"there is no part {arguments.name}: the parts are {', '.join(logs)}")
    if arguments.follow:
        argv = ["tail", "-n", str(arguments.lines), "-F", str(logs[arguments.name])]
        os.execvp(argv[0], argv)
    print(tail(logs[arguments.name], arguments.lines, indent=""))
    return 0


def shell(arguments: argparse.Namespace) -> int:
    stack = Stack.attach(arguments.root)
    program = os.environ.get("SHELL") or "/bin/sh"
    settings = stack.settings()
    print("\n".join(f"{name}={value}" for name, value in settings.items()))
    # Ctrl-C is for what runs in the shell.
    signal.signal(signal.SIGINT, lambda *_: None)
    print(f"{program}: leave it with `exit`")
    return subprocess.run([program], env={**os.environ, **settings}, check=False).returncode


def env(arguments: argparse.Namespace) -> int:
    for name, value in Stack.attach(arguments.root).settings().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


_COMMANDS = {
    "up": up,
    "fetch": fetch,
    "down": down,
    "status": status,
    "logs": logs,
    "shell": shell,
    "env": env,
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    arguments.root = arguments.root.absolute()
    # What a half-done start or build leaves is removed on SIGTERM as it is on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return _COMMANDS[arguments.command](arguments)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was begun is stopped and nothing is left half done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
