"""An entry of the cache is there whole or not at all, whoever fills it and however that ends."""

from __future__ import annotations

import io
import multiprocessing
import threading
from pathlib import Path

import pytest

from devstack.cache import Cache, digest, remove
from devstack.progress import Progress


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def quiet() -> Progress:
    return Progress(quiet=True)


def write(folder: Path) -> None:
    (folder / "file").write_text("content")


def test_a_filled_entry_is_found_and_not_made_again(cache: Cache, quiet: Progress) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        write(folder)

    first, second = cache.fill("jars", make, quiet), cache.fill("jars", make, quiet)

    assert first == second == cache.find("jars")
    assert (first / "file").read_text() == "content"
    assert len(made) == 1


def test_an_interrupted_fill_leaves_no_entry_and_no_half(cache: Cache, quiet: Progress) -> None:
    def interrupted(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fill("jars", interrupted, quiet)

    assert cache.find("jars") is None
    assert not [path for path in cache.folder.iterdir() if path.is_dir()]


def test_what_a_killed_fill_left_does_not_reach_the_next(cache: Cache, quiet: Progress) -> None:
    left = cache.folder / "jars.partial"
    left.mkdir(parents=True)
    (left / "half").touch()
    left.chmod(0o500)

    filled = cache.fill("jars", write, quiet)

    assert [path.name for path in filled.iterdir()] == ["file"]


def _fill_slowly(folder: Path, started: threading.Event, go_on: threading.Event, made: Path) -> None:
    def make(partial: Path) -> None:
        with made.open("a") as file:
            file.write("once\n")
        started.set()
        assert go_on.wait(30)
        write(partial)

    Cache(folder).fill("jars", make, Progress(quiet=True))


def test_two_processes_that_fill_at_once_make_it_once(cache: Cache, tmp_path: Path) -> None:
    # given one process in the middle of filling
    context = multiprocessing.get_context("spawn")
    started, go_on, made = context.Event(), context.Event(), tmp_path / "made"
    first = context.Process(target=_fill_slowly, args=(cache.folder, started, go_on, made))
    first.start()
    try:
        assert started.wait(30), "the first process did not begin to fill"
        # when a second one asks for the same entry, and is seen to wait
        said = io.StringIO()
        second = threading.Thread(target=lambda: cache.fill("jars", write, Progress(said)))
        second.start()
        waiting = threading.Event()
        for _ in range(1500):
            if "waiting for another process" in said.getvalue() or waiting.wait(0.02):
                break
        assert "waiting for another process that fills jars" in said.getvalue()
        # then it gets what the first one made
        go_on.set()
        second.join(30)
        assert not second.is_alive()
    finally:
        go_on.set()
        first.join(30)
    assert made.read_text() == "once\n"
    assert cache.find("jars") is not None


def test_a_key_changes_with_each_text_and_with_its_borders() -> None:
    assert len({digest("a", "b"), digest("ab"), digest("a", "c"), digest("b", "a")}) == 4


def test_read_only_folders_are_removed_too(tmp_path: Path) -> None:
    module = tmp_path / "modules" / "module@v1"
    module.mkdir(parents=True)
    (module / "file").touch()
    module.chmod(0o500)

    remove(tmp_path / "modules")

    assert not (tmp_path / "modules").exists()
