"""How each fault strikes the world, and how it is over.

Faults of one target come one after the other, those of different targets side by side.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import redis

from devstack.errors import StackError
from devstack.part import Part
from tests.soak.faults import BURST, PAUSES, Fault, Kind
from tests.soak.programs import ProducerProgram, Program
from tests.soak.world import World

Healing = Callable[[], None]
HEALED_TIMES = 3
FAILURES = (StackError, OSError, redis.RedisError)


class Strikes:
    """Carries faults out on a world, and remembers those that struck.

    `say` tells of each. `failed`: what could not be carried out, or made good. `ended`: how often each
    process ended by itself.
    """

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world, self._say = world, say
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._pending: list[Future[None]] = []
        self._given_up = threading.Event()
        self._copy = b""
        self._revivals: dict[str, Future[None]] = {}
        self.ended: Counter[str] = Counter()
        self.done: list[Fault] = []
        self.failed: list[str] = []

    def strike(self, fault: Fault) -> None:
        """Let it happen as soon as its target is well; returns at once."""
        self._pending.append(self._of(fault.target).submit(self._carry_out, fault))

    def keep_copy(self) -> None:
        """Remember what Redis holds: the copy that it falls back to later."""
        self._pending.append(self._of("redis").submit(self._copy_redis))

    def supervise(self) -> None:
        """Start again what has ended by itself, as Kubernetes would: a member that was frozen until another
        had its partitions is refused by the store, and ends."""
        for program in self._world.programs:
            if isinstance(program, ProducerProgram) and self._world.is_told_to_stop:
                continue
            waits = self._revivals.get(program.name)
            if not program.is_running and (waits is None or waits.done()):
                self._revivals[program.name] = self._of(program.name).submit(self._revive, program)

    def _revive(self, program: Program) -> None:
        if program.is_running or self._given_up.is_set():
            return
        self._say(f"{program.name} has ended by itself: it is started again")
        self.ended[program.name] += 1
        self._start(program)

    def _start(self, program: Program) -> None:
        if isinstance(program, ProducerProgram):
            self._world.begin(program)
        else:
            program.launch()

    def finish(self) -> None:
        """Wait until all that was begun is over."""
        for threads in list(self._threads.values()):
            threads.submit(_nothing).result()
        for future in self._pending:
            future.result()

    def give_up(self) -> None:
        """Let nothing more happen, and be over at once what lasts."""
        self._given_up.set()
        for threads in self._threads.values():
            threads.shutdown(wait=True, cancel_futures=True)

    def _of(self, target: str) -> ThreadPoolExecutor:
        if target not in self._threads:
            self._threads[target] = ThreadPoolExecutor(1, f"fault-{target}")
        return self._threads[target]

    def _copy_redis(self) -> None:
        with contextlib.suppress(redis.RedisError):  # then the copy before it is all the older
            self._copy = self._world.valkey.copy()

    def _carry_out(self, fault: Fault) -> None:
        if self._given_up.is_set():
            return
        self._say(str(fault))
        try:
            heal = self._hit(fault)
            self.done.append(fault)
            self._given_up.wait(fault.seconds)
            self._heal(heal)
        except FAILURES as error:
            self.failed.append(f"{fault}: {error}")

    @staticmethod
    def _heal(heal: Healing) -> None:
        """Make it good, again where a machine that is busy took too long."""
        for _ in range(HEALED_TIMES - 1):
            try:
                return heal()
            except FAILURES:
                continue
        heal()

    def _hit(self, fault: Fault) -> Healing:
        """Strike; what it takes to make it good again."""
        world = self._world
        match fault.kind:
            case Kind.KILL_BROKER | Kind.PAUSE_BROKER:
                node = world.stack.kafka.nodes[world.leader()]
                return _killed(node) if fault.kind is Kind.KILL_BROKER else _paused(node)
            case Kind.KILL_REDIS:
                return _killed(world.valkey)
            case Kind.WIPE_REDIS:
                world.valkey.wipe()
            case Kind.ROLL_BACK_REDIS:
                world.valkey.roll_back(self._copy or world.valkey.copy())
            case Kind.API_GONE:
                return _killed(world.scene.stack.kubernetes.apiserver)
            case Kind.SKEW_PRODUCER | Kind.SKEW_AGGREGATOR:
                world.order_of("skews", fault.target, fault.skew)
                return lambda: world.order_of("skews", fault.target, 0.0)
            case Kind.QUEUE_FULL:
                world.order_of("bursts", fault.target, BURST)
            case _:
                program = world.program(fault.target)
                self._revive(program)
                if fault.kind in PAUSES:
                    return _paused(program)
                program.kill()
                return lambda: self._start(program)
        return _nothing


def _killed(part: Part) -> Healing:
    part.kill()
    return part.start


def _paused(part: Part) -> Healing:
    part.pause()
    return part.resume


def _nothing() -> None:
    """What is over at once."""
