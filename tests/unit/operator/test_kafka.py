"""Kafka's adapter while nobody answers: what it must not hold up."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from hotkey_operator.adapters.kafka import KafkaBrokers
from hotkey_operator.ports import Unavailable

HANGS_SECONDS = 0.5
POLICIES = 100
NOBODY = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def test_calls_to_a_cluster_that_hangs_leave_the_threads_to_redis_and_kubernetes() -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        brokers = KafkaBrokers(NOBODY, timeout_seconds=HANGS_SECONDS)
        waiting = asyncio.create_task(brokers.topic("clicks"))
        await asyncio.sleep(0)
        answered = asyncio.create_task(asyncio.to_thread(lambda: "the API server's answer"))
        done, _ = await asyncio.wait([waiting, answered], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await brokers.close()
        assert done == {answered}

    asyncio.run(run())


def test_a_call_that_gets_no_thread_gives_up_so_that_its_turn_ends() -> None:
    async def run() -> None:
        brokers = KafkaBrokers(NOBODY, timeout_seconds=HANGS_SECONDS, patience_seconds=0.2)
        calls = [brokers.topic(f"clicks-{number}") for number in range(POLICIES)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * POLICIES
        assert "within 0.2 s" in str(answers[-1])
        await brokers.close()

    asyncio.run(run())


@pytest.mark.parametrize("times", [1, 2])
def test_what_never_answered_can_be_closed(times: int) -> None:
    async def run() -> None:
        brokers = KafkaBrokers(NOBODY, timeout_seconds=0.1)
        for _ in range(times):
            with pytest.raises(Unavailable):
                await brokers.topic("clicks")
        await brokers.close()

    asyncio.run(run())
