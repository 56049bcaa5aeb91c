"""`python -m tests.unit.engine.figures`: the figures of docs/planning.md."""

from __future__ import annotations

from hotkey_operator.engine.placement import Ground, HotKey, plan
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import shard_key
from tests.unit.engine.test_placement import RECORDS_PER_PARTITION, measured, quiet

SHARE, QUIET_KEYS, NAIVE_SHARDS, SEEDS = 0.8, 999, 16, (1, 2, 3)


def main() -> None:
    print("| partitions | plain | 16 suffixes | planned | measured | shards | slots |")
    print("|---|---|---|---|---|---|---|")
    for partitions in (12, 48, 96):
        print(row(partitions))


def row(partitions: int) -> str:
    """One line of the table; measured: the worst of a few seeds."""
    total = float(RECORDS_PER_PARTITION * partitions)
    background = quiet(partitions, QUIET_KEYS, total * (1 - SHARE))
    planned = [
        plan(Ground(background, "t", seed), [HotKey(b"nike", total * SHARE, ("u",))]) for seed in SEEDS
    ]
    loads = [
        measured(each, background, {b"nike": total * SHARE}, seed)
        for each, seed in zip(planned, SEEDS, strict=True)
    ]
    route = planned[0].routes[0]
    cells = [
        str(partitions),
        f"{imbalance(suffixed(background, total * SHARE, 1)):.2f}",
        f"{imbalance(suffixed(background, total * SHARE, NAIVE_SHARDS)):.2f}",
        f"{planned[0].imbalance:.2f}",
        f"{max(map(imbalance, loads)):.2f}",
        str(len(route.shards)),
        str(len(route.slots)),
    ]
    return f"| {' | '.join(cells)} |"


def suffixed(background: tuple[float, ...], load: float, shards: int) -> list[float]:
    """The loads where the key goes evenly to suffixes 0, 1, 2 and so on; one of them is the plain key."""
    loads = list(background)
    names = [b"nike"] if shards == 1 else [shard_key(b"nike", i) for i in range(shards)]
    for name in names:
        loads[partition_for(name, len(loads))] += load / len(names)
    return loads


def imbalance(loads: list[float]) -> float:
    return max(loads) * len(loads) / sum(loads)


if __name__ == "__main__":
    main()
