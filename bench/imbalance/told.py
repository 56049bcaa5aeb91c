"""The words, tables and pictures of the part; made from the rows alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.imbalance.peers import Method
from bench.imbalance.rows import Adoption, Imbalance, Row, Workload
from bench.imbalance.trial import HOTKEY
from bench.part import Goal, Plot
from bench.svg import COLORS, Bar, bars

GOALS = {12: 1.05, 48: 1.08, 96: 1.10}  # imbalance by partitions
_NAMES = {"": "hotkey, any order", "user_id": "hotkey, order by user_id"}
_ORDER = {
    Method.PLAIN: "per key",
    Method.SALT_16: "none, or per user if the salt is hash(user) mod 16",
    Method.SALT_64: "none, or per user if the salt is hash(user) mod 64",
    Method.GROUPING: "none",
    Method.D_CHOICES: "none",
    Method.W_CHOICES: "none",
}
_NEEDS = {
    Method.PLAIN: "nothing",
    Method.SALT_16: "the hot key known beforehand, readers that know the salt",
    Method.SALT_64: "the hot key known beforehand, readers that know the salt",
    Method.GROUPING: "readers that add up two parts of every key",
    Method.D_CHOICES: "readers that add up two parts of every key, more of heavy ones",
    Method.W_CHOICES: "readers that add up two parts of every key, all of heavy ones",
}


def goals(result: Imbalance) -> list[Goal]:
    """hotkey's imbalance at the promised numbers of partitions."""
    return [
        Goal(f"imbalance, {row.partitions} partitions, {_name(row)}", row.imbalance, GOALS[row.partitions])
        for row in result.rows
        if row.workload is Workload.ONE_HOT and row.method == HOTKEY and row.partitions in GOALS
    ]


def headline(result: Imbalance) -> str:
    """hotkey beside every alternative, in one table."""
    of = [row for row in result.rows if row.workload is Workload.ONE_HOT]
    partitions = sorted({row.partitions for row in of})
    heads = [f"{n} partitions" for n in partitions]
    lines = [
        "## hotkey beside the alternatives\n",
        f"One key with {result.share:.0%} of all records, {result.keys - 1} others evenly with the rest. "
        "Imbalance is max/mean of the records per partition on real Kafka: 1.00 is even. In brackets: the "
        "(key, partition) pairs, each of them state that some reader has to keep; "
        f"{_drawn_keys(of)} is the least.\n",
        f"| | {' | '.join(heads)} | order kept | needs |",
        f"|---|{'---|' * len(heads)}---|---|",
    ]
    for name in _in_order(of):
        rows = {row.partitions: row for row in of if _name(row) == name}
        cells = [_cell(rows.get(n)) for n in partitions]
        lines.append(f"| {_strong(name)} | {' | '.join(cells)} | {_order_of(name)} | {_needs_of(name)} |")
    return "\n".join(lines)


def section(result: Imbalance) -> str:
    """How it was measured, and what the table at the top has no room for."""
    return "\n\n".join(
        part for part in (_method(result), _adoptions(result), _zipf(result), _textbook(result)) if part
    )


def plots(result: Imbalance) -> list[Plot]:
    """The imbalance of every method, by partitions."""
    of = [row for row in result.rows if row.workload is Workload.ONE_HOT]
    groups = [
        (f"{n} partitions", [_bar(row) for row in sorted(of, key=_rank) if row.partitions == n])
        for n in sorted({row.partitions for row in of})
    ]
    title = f"Imbalance (max/mean), one key with {result.share:.0%} of the records; logarithmic from 1"
    return [Plot("imbalance", "Imbalance by method and partitions", bars(title, groups, start=1.0, log=True))]


def _method(result: Imbalance) -> str:
    each, users = f"{(1 - result.share) / (result.keys - 1):.3%}", f"{result.users:,}"
    live, quiet = f"{result.live_rate:.0f} records/s per partition", f"{result.settled_seconds:.0f} s"
    return f"""## Imbalance

*How even are the partitions, and at what price, when one key makes {result.share:.0%} of the load?*

- Every row: {result.records_per_partition:,} records per partition (mean) by {result.producers} producers, in
  Kafka; the figures are differences of end offsets. Keys are drawn with the same seed for all methods. The
  other {result.keys - 1} keys are drawn evenly (each has {each} of the records), users evenly out of {users}.
- **hotkey**: the real operator, with a policy of the shipped defaults (and, by `user_id`, `spread.by:
  [[user_id]]` with `ordering: PerDimension`). {result.producers} processes with `hotkey_sdk.Producer` send
  live ({live}, 5,000/s at least) until the table has routes, all producers apply it, and no other table has
  come for {quiet}. Then the same producers send the records as fast as they can, on the live system: the
  operator may plan anew meanwhile, and the table below says whether it did.
- **fixed salt**: `key:0` to `key:15` (`:63`) drawn at random, placed by murmur2, of the hot key alone, which
  has to be known beforehand: salting every key would make up to 16 (64) times as many pairs.
- **partial key grouping**: arXiv 1510.07623, two choices for every key. **D-Choices**, **W-Choices**: arXiv
  1510.05714, threshold 1/(5n), SpaceSaving with 10n counters, epsilon 1e-4; where a key is so heavy that d
  comes out as n, D-Choices is W-Choices. Each producer decides record by record by what it has sent itself.
  Their records, and those of the plain key and the salts, are sent to the partition so chosen."""


def _adoptions(result: Imbalance) -> str:
    rows = [
        f"| {row.workload}, {row.by or 'any order'} | {row.partitions} | {row.imbalance:.3f} | {a.shards} | "
        f"{a.slots} | {a.tables_before} | {a.tables_during or 'no'} | "
        f"{a.waited_seconds:.0f} s{_restless(a)} |"
        for row in result.rows
        if (a := row.adoption) is not None
    ]
    if not rows:
        return ""
    columns = (
        "| load | partitions | imbalance | shards | slots | tables before | new ones during | live for |"
    )
    return "\n".join(["### What the operator did\n", columns, "|---|---|---|---|---|---|---|---|", *rows])


def _restless(adoption: Adoption) -> str:
    if not adoption.routes:
        return ", never spread"
    return "" if adoption.settled else ", not settled"


def _zipf(result: Imbalance) -> str:
    of = [row for row in result.rows if row.workload is Workload.ZIPF]
    if not of:
        return ""
    each = f"{result.zipf_records_per_partition:,}"
    rows = [
        f"| {row.partitions} | {row.imbalance:.3f} | {row.bound:.3f} | {row.imbalance / row.bound:.3f} | "
        f"{row.pairs:,} | {_escaped(row.adoption.told) if row.adoption else ''} |"
        for row in of
    ]
    return "\n".join(
        [
            "### Users by Zipf's law\n",
            f"User r of {result.users:,} has a part of r^-{result.zipf:g} of the records; ordered by user, "
            f"so one user's records cannot be split. {each} records per partition. "
            "With B the load of the partitions without the hot key, h the hot key's and v the part of its "
            "heaviest user, no plan that leaves the other keys at home is below "
            "`max(mean, max B, h*v + min B) / mean`.\n",
            "| partitions | imbalance | bound | imbalance/bound | pairs | the operator says |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _textbook(result: Imbalance) -> str:
    of = [row for row in result.rows if row.workload is Workload.TEXTBOOK]
    if not of:
        return ""
    rows = [
        f"| {_strong(name)} | {row.imbalance:.3f} | {_listed(row.records)} | {row.pairs} |"
        for name in _in_order(of)
        for row in of
        if _name(row) == name
    ]
    return "\n".join(
        [
            "### The textbook case\n",
            "Keys of 80,000, 8,000 and 12,000 records on 3 partitions.\n",
            "| | imbalance | records per partition | pairs |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _name(row: Row) -> str:
    return _NAMES.get(row.by, f"hotkey, order by {row.by}") if row.method == HOTKEY else row.method


def _rank(row: Row) -> int:
    names = [*_NAMES.values(), *Method]
    return names.index(_name(row)) if _name(row) in names else len(names)


def _in_order(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(_name(row) for row in sorted(rows, key=_rank)))


def _cell(row: Row | None) -> str:
    return "" if row is None else f"{row.imbalance:.2f} ({row.pairs:,})"


def _strong(name: str) -> str:
    return f"**{name}**" if name in _NAMES.values() else name


def _order_of(name: str) -> str:
    if name in _NAMES.values():
        return "per user" if name == _NAMES["user_id"] else "none"
    return _ORDER[Method(name)]


def _needs_of(name: str) -> str:
    return "operator, SDK" if name in _NAMES.values() else _NEEDS[Method(name)]


def _drawn_keys(rows: Sequence[Row]) -> str:
    plain = {row.pairs for row in rows if row.method == Method.PLAIN}
    return f"{min(plain):,}" if plain else "one per key"


def _bar(row: Row) -> Bar:
    color = COLORS[0] if row.method == HOTKEY else COLORS[-1] if row.method == Method.PLAIN else COLORS[4]
    return Bar(_name(row), row.imbalance, f"{row.imbalance:.2f}", color)


def _listed(counts: Iterable[int]) -> str:
    return ", ".join(f"{count:,}" for count in counts)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
