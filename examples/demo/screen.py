"""Shows the demo while it runs: a live picture on a terminal, lines everywhere else."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from examples.demo.picture import line, picture
from examples.demo.view import Scene
from examples.demo.watch import Watch

LINE_SECONDS = 5.0
NEWS_SECONDS = 0.25


class Screen:
    """Draws what a watch sees until it is left; the last picture stays on the terminal."""

    def __init__(self, watch: Watch, console: Console) -> None:
        self._watch, self._console = watch, console

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live: Live | None = Live(
                console=self._console,
                get_renderable=lambda: picture(self._watch.scene()),
                refresh_per_second=4,
            )
            self._live.start()
        else:
            self._live = None
            self._closing = threading.Event()
            self._thread = threading.Thread(target=self._print, name="lines", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._closing.set()
            self._thread.join()

    def _print(self) -> None:
        told, quiet, ended = 0, 0.0, False
        while not ended:
            ended = self._closing.wait(NEWS_SECONDS)
            scene, quiet = self._watch.scene(), quiet + NEWS_SECONDS
            is_due = quiet >= LINE_SECONDS
            for each in lines(scene, told, with_view=is_due):
                print(each)
            told, quiet = len(scene.happenings), 0.0 if is_due else quiet
            sys.stdout.flush()


def lines(scene: Scene, told: int, *, with_view: bool) -> list[str]:
    """What happened after the first `told`, and what is to be seen, each at its time, in order."""
    news = [(each.at, f"{each.source:<6} {each.text}") for each in scene.happenings[told:]]
    # A look takes a while: what happened during it was told before the look was there to see.
    at = max([scene.view.at, *(each.at for each in scene.happenings)])
    seen = [(at, line(scene.view))] if with_view else []
    return [f"{at:7.1f} s  {text}" for at, text in [*news, *seen]]
