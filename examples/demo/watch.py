"""Looks at the running system a few times a second, keeps the history, wakes who waits for something."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from confluent_kafka import KafkaException

from examples.demo.errors import DemoError
from examples.demo.kube import Kube, Object
from examples.demo.stream import Topic
from examples.demo.view import Happening, PolicyView, Scene, View, rates

LOOK_SECONDS = 0.25
RATE_SECONDS = 2.0  # the rates shown are of the last so many seconds
KEPT_IMBALANCES = 512  # about two minutes


class Watch:
    """Sees the topic and one policy. `alive` is called while someone waits; it raises when something died."""

    def __init__(self, topic: Topic, kube: Kube, policy: str, alive: Callable[[], None]) -> None:
        self.title = "starting"
        self.acked: Callable[[], int] = int
        self.begin = time.monotonic()
        self._topic, self._kube, self._policy, self._alive = topic, kube, policy, alive
        self._view = View()
        self._ends: deque[tuple[float, tuple[int, ...]]] = deque()
        self._imbalances: deque[float] = deque(maxlen=KEPT_IMBALANCES)
        self._happenings: list[Happening] = []
        self._events_seen: set[str] = set()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def tell(self, text: str, source: str = "demo") -> None:
        """Add a line to what happened."""
        with self._changed:
            self._happenings.append(Happening(time.monotonic() - self.begin, source, text))

    def scene(self) -> Scene:
        """What the picture shows now."""
        with self._changed:
            return Scene(self.title, self._view, tuple(self._imbalances), tuple(self._happenings))

    def wait_for(self, what: str, condition: Callable[[View], bool], seconds: float) -> View:
        """The first view that fulfils `condition`. Raises `DemoError` with the last view at the deadline."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._view):
                if time.monotonic() > deadline:
                    raise DemoError(f"{what}: not within {seconds:.0f} s; last seen: {_last(self._view)}")
                self._changed.wait(LOOK_SECONDS)
                self._alive()
            return self._view

    def _run(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            view = self._look()
            with self._changed:
                self._view = view
                if (imbalance := view.imbalance) is not None:
                    self._imbalances.append(imbalance)
                self._changed.notify_all()

    def _look(self) -> View:
        now = time.monotonic()
        try:
            self._note_ends(now)
            policy, table = self._kube.policy(self._policy), self._kube.table(self._policy)
            self._note_events()
        except (DemoError, KafkaException) as error:
            return View(
                at=now - self.begin, rates=self._rates(), policy=self._view.policy, problem=str(error)
            )
        spec: Object = (table or {}).get("spec", {})
        return View(
            at=now - self.begin,
            rates=self._rates(),
            policy=PolicyView.of((policy or {}).get("status", {})),
            table_epoch=int(spec.get("epoch", 0)),
            routes=tuple((_key(route), len(route["shards"])) for route in spec.get("routes", [])),
            acked=self.acked(),
        )

    def _note_ends(self, now: float) -> None:
        ends = self._topic.end_offsets()
        if ends is None:
            return
        self._ends.append((now, ends))
        while len(self._ends) > 2 and self._ends[1][0] <= now - RATE_SECONDS:
            self._ends.popleft()

    def _rates(self) -> tuple[float, ...]:
        if len(self._ends) < 2:
            return (0.0,) * self._topic.partitions
        (first, before), (last, after) = self._ends[0], self._ends[-1]
        return rates(before, after, last - first)

    def _note_events(self) -> None:
        for event in self._kube.events(self._policy):
            name = event["metadata"]["name"]
            if name not in self._events_seen:
                self._events_seen.add(name)
                self.tell(f"{event.get('reason')}: {event.get('message')}", "Event")


def _key(route: Object) -> str:
    return str(route.get("key") or f"base64:{route.get('keyBase64')}")


def _last(view: View) -> str:
    policy = view.policy
    return (
        f"Ready={policy.ready} {policy.reason} {policy.message!r}, epoch {policy.epoch}, applied by "
        f"{policy.producers or '-'}, decision {policy.decision} {policy.decision_message!r}, "
        f"routes {view.routes}, imbalance {view.imbalance}, {view.problem or 'no problem'}"
    )
