"""Groups of a Kafka that does not answer: each says why in time, and nothing hangs."""

from __future__ import annotations

import asyncio

import pytest

from hotkey_operator.adapters.groups import KafkaGroups
from hotkey_operator.ports import Unavailable

NOBODY = {"bootstrap.servers": "127.0.0.1:1"}


def test_each_group_says_why_it_cannot_be_asked() -> None:
    async def scenario() -> None:
        groups = KafkaGroups(NOBODY, timeout_seconds=0.1)
        found = await groups.committed("clicks", 3, ["billing", "audit", "billing"])
        assert [each.group for each in found] == ["billing", "audit", "billing"]
        for each in found:
            assert each.offsets == {}
            assert f"Kafka: cannot read what group '{each.group}' committed on clicks" in str(each.failure)
        await groups.close()

    asyncio.run(scenario())


def test_the_starts_of_logs_are_unavailable() -> None:
    async def scenario() -> None:
        groups = KafkaGroups(NOBODY, timeout_seconds=0.1)
        with pytest.raises(Unavailable, match="cannot read the first offsets of clicks"):
            await groups.starts("clicks", [0])
        await groups.close()

    asyncio.run(scenario())
