"""What the two commands do: read the objects, find the key, print it. The only part with clock and screen."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import yaml

from hotkey_operator.plugin.arguments import Options, parse
from hotkey_operator.plugin.cluster import Cluster, ClusterError, Forbidden, Object, connect
from hotkey_operator.plugin.columns import printable
from hotkey_operator.plugin.destination import DimensionError, placed
from hotkey_operator.plugin.explain import explanation, remembered, value
from hotkey_operator.plugin.policies import Found, Policy, find, hottest, nearest, policies, whose_shard
from hotkey_operator.plugin.top import key_table, overview, values
from hotkey_operator.verdicts import key_text

_CLEAR = "\x1b[H\x1b[2J"
_HOTTEST = 5


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code."""
    options = parse(arguments)
    try:
        cluster = connect(options.kubeconfig, options.context)
        return _explain(cluster, options) if options.command == "explain" else _top(cluster, options)
    except ClusterError as error:
        return _failed(str(error))


def _explain(cluster: Cluster, options: Options) -> int:
    key = os.fsencode(options.key)
    read = _read(cluster, options)
    found = find(read, key)
    if not read:
        return _failed(_no_policies(cluster, options))
    if not found:
        return _not_known(cluster, options, read, key)
    if options.dimensions:
        return _place(found, options)
    if options.output != "text":
        documents = [value(each) for each in found]
        _print_value(documents[0] if len(documents) == 1 else {"items": documents}, options.output)
        return 0
    now = datetime.now(UTC)
    for number, each in enumerate(found):
        if number:
            print()
        events = _events(cluster, each.policy.namespace, each.policy.name)
        print("\n".join(explanation(each, events, now)))
    return 0


def _place(found: Sequence[Found], options: Options) -> int:
    """Where a record with these dimensions goes: a line for each policy that knows the key."""
    timestamp_ms = int((options.moment or datetime.now(UTC)).timestamp() * 1_000)
    for each in found:
        if each.policy.unreadable is not None:
            return _failed(f"{each.policy.unreadable}: where records go is not known")
        try:
            place = placed(each, os.fsencode(options.key), dict(options.dimensions), timestamp_ms)
        except DimensionError as error:
            return _failed(str(error))
        if options.output == "text":
            print(printable(str(place)))
        else:
            _print_value(place.document, options.output)
    return 0


def _not_known(cluster: Cluster, options: Options, read: Sequence[Policy], key: bytes) -> int:
    where, namespace = _scope(cluster, options), _namespace(cluster, options)
    events = remembered(read, _events(cluster, namespace), key_text(key), datetime.now(UTC))
    elsewhere = "" if options.everywhere else "; -A looks into all namespaces"
    shown = key_text(key) or "(empty)"
    lines = [f"key {shown} is not known in {where}: it is neither heavy nor spread{elsewhere}"]
    shard, near = whose_shard(read, key), nearest(read, key)
    if shard is not None:
        lines = [f"{shard}; explain that one"]
    elif events:
        lines = [f"key {shown} is neither heavy nor spread in {where} now; the latest Events tell of it:"]
        return _failed("\n".join([*lines, *("  " + line for line in events)]))
    elif near:
        lines.append(f"nearest: {', '.join(near)}")
    known = hottest(read)[:_HOTTEST]
    if known:
        lines += ["hottest:", *("  " + line for line in key_table(known))]
    return _failed("\n".join(lines))


def _top(cluster: Cluster, options: Options) -> int:
    clear = _CLEAR if options.watch and sys.stdout.isatty() and options.output == "text" else ""
    print(clear, end="")
    code = _print_top(cluster, options)
    while options.watch:
        sys.stdout.flush()
        time.sleep(options.interval_seconds)
        print(clear, end="")
        _tell_of_errors(lambda: _print_top(cluster, options))
    return code


def _tell_of_errors(step: Callable[[], int]) -> None:
    """A watch outlives an API server that is restarted."""
    try:
        step()
    except Forbidden:
        raise
    except ClusterError as error:
        _failed(str(error))


def _print_top(cluster: Cluster, options: Options) -> int:
    read = _read(cluster, options)
    if options.output != "text":
        _print_value(values(read), options.output)
    elif not read:
        print(_no_policies(cluster, options), file=sys.stderr)
    else:
        print("\n".join(overview(read)))
    return 0


def _read(cluster: Cluster, options: Options) -> list[Policy]:
    namespace = _namespace(cluster, options)
    found = cluster.policies(namespace)
    if options.policy is not None:
        found = [each for each in found if each["metadata"]["name"] == options.policy]
    try:
        tables = cluster.tables(namespace) if found else []
    except Forbidden as error:
        tables = []
        print(f"kubectl hotkeys: routes are not shown: {error}", file=sys.stderr)
    return policies(found, tables)


def _namespace(cluster: Cluster, options: Options) -> str | None:
    """None: all of them."""
    return None if options.everywhere else options.namespace or cluster.namespace


def _events(cluster: Cluster, namespace: str | None, policy: str | None = None) -> list[Object]:
    try:
        return cluster.events(namespace, policy)
    except ClusterError:
        return []  # who may read policies need not read Events


def _no_policies(cluster: Cluster, options: Options) -> str:
    what = f"HotKeyPolicy {options.policy}" if options.policy is not None else "HotKeyPolicies"
    hint = "" if options.everywhere else "; -A looks into all namespaces"
    return f"No {what} found in {_scope(cluster, options)}{hint}."


def _scope(cluster: Cluster, options: Options) -> str:
    if options.everywhere:
        return "any namespace"
    return f"namespace {_namespace(cluster, options)}"


def _print_value(document: object, form: str) -> None:
    if form == "json":
        print(json.dumps(document, indent=4, ensure_ascii=False))
    else:
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1_000), end="")


def _failed(message: str) -> int:
    print("kubectl hotkeys: " + "\n".join(printable(line) for line in message.split("\n")), file=sys.stderr)
    return 1
