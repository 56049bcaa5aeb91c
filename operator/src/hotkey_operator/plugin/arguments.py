"""The command line of `kubectl hotkeys`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hotkey_operator import __version__

_EPILOG = "It reads HotKeyPolicies and RoutingTables with your kubeconfig, and changes nothing."


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked. `namespace` None: that of the context, or all with `everywhere`."""

    command: str
    kubeconfig: str | None
    context: str | None
    namespace: str | None
    everywhere: bool
    output: str
    policy: str | None
    key: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()
    moment: datetime | None = None
    watch: bool = False
    interval_seconds: float = 2.0


def parse(arguments: Sequence[str]) -> Options:
    """The options. Ends the process with code 2 where they are wrong, 0 after `--help` and `--version`."""
    given = _parser().parse_args(arguments)
    return Options(
        command=given.command,
        kubeconfig=given.kubeconfig,
        context=given.context,
        namespace=given.namespace,
        everywhere=given.everywhere,
        output=given.output,
        policy=given.policy,
        key=getattr(given, "key", ""),
        dimensions=tuple(getattr(given, "dimensions", ())),
        moment=getattr(given, "at", None),
        watch=getattr(given, "watch", False),
        interval_seconds=getattr(given, "interval", 2.0),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl hotkeys", description="What hotkey decided about Kafka keys, and why.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"kubectl-hotkeys {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    explain = commands.add_parser(
        "explain",
        help="one key: where it is, what was decided, from what evidence, at what cost, what was rejected",
        epilog=_EPILOG,
    )
    explain.add_argument("key", metavar="KEY", help="the key as producers use it, or as status writes it")
    explain.add_argument(
        "--dimension", action="append", type=_dimension, default=[], dest="dimensions", metavar="NAME=VALUE",
        help="say only which shard a record with this value takes; once for each dimension of the key's rung",
    )  # fmt: skip
    explain.add_argument(
        "--at", type=_moment, metavar="TIME", help="the record's time, for a time bucket (default: now)"
    )
    top = commands.add_parser("top", help="all keys, the hottest first, and their policies", epilog=_EPILOG)
    top.add_argument("-w", "--watch", action="store_true", help="print it again and again")
    top.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between two (default: 2)"
    )
    for command in (explain, top):
        _add_common(command)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--namespace", help="of the policies (default: that of the context)")
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", dest="everywhere", help="policies of all namespaces"
    )
    parser.add_argument("--policy", metavar="NAME", help="only the HotKeyPolicy of this name")
    parser.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), default="text", help="default: text"
    )
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", help="of the kubeconfig (default: its current one)")


def _dimension(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3_600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 3600")
    return seconds
