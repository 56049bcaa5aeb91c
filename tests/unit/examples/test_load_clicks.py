"""What the load sends: its clicks, its settings and the trace that it replays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from examples.load.clicks import ClickMaker
from examples.load.settings import KeyField, LoadSettings
from examples.load.trace import TraceError, read_trace


def settings(
    hot_share: float = 0.8, key_field: KeyField = KeyField.ADVERTISER, run: str = "run"
) -> LoadSettings:
    return LoadSettings(
        bootstrap="127.0.0.1:1", topic="clicks", run=run, hot_share=hot_share, key_field=key_field
    )


@pytest.mark.parametrize("field", list(KeyField))
def test_the_hot_key_has_its_share_whichever_field_is_the_key(field: KeyField) -> None:
    maker = ClickMaker(settings(hot_share=0.8, key_field=field), producer=0)
    keys = Counter(maker.draw(number, 0).key(field) for number in range(5_000))
    assert keys["nike"] / 5_000 == pytest.approx(0.8, abs=0.03)
    assert max(n for key, n in keys.items() if key != "nike") < 50


def test_a_share_that_is_raised_between_two_clicks_holds_from_the_next_click_on() -> None:
    maker = ClickMaker(settings(hot_share=0.0), producer=0)
    before = {maker.draw(number, 0).advertiser_id for number in range(100)}
    maker.hot_share = 1.0
    after = {maker.draw(number, 0).advertiser_id for number in range(100, 200)}
    assert "nike" not in before
    assert after == {"nike"}


def test_no_two_clicks_of_a_load_have_one_id() -> None:
    makers = [ClickMaker(settings(), producer) for producer in range(3)]
    ids = [maker.draw(number, 0).event_id for maker in makers for number in range(100)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("share", "run"), [(1.1, "run"), (-0.1, "run"), (0.5, "a-b"), (0.5, "")])
def test_settings_that_cannot_be_meant_are_refused(share: float, run: str) -> None:
    with pytest.raises(ValueError, match="must"):
        settings(hot_share=share, run=run)


def test_settings_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = settings(key_field=KeyField.REGION)
    written.save(tmp_path / "load.json")
    assert LoadSettings.read(tmp_path / "load.json") == written


def trace(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_trace_is_read_in_seconds_since_its_first_row(tmp_path: Path) -> None:
    rows = list(
        read_trace(trace(tmp_path / "t.csv", "ts,key,id,dimension\n100.5,nike,a,u1\n102,puma,b,u2\n"))
    )
    assert [(row.at, row.key, row.id, row.dimension) for row in rows] == [
        (0.0, "nike", "a", "u1"),
        (1.5, "puma", "b", "u2"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ts,key,id\n1,nike,a\n", "lacks dimension"),
        ("ts,key,id,dimension\nyesterday,nike,a,u\n", "line 2: ts is 'yesterday'"),
        ("ts,key,id,dimension\n2,nike,a,u\n1,nike,b,u\n", "line 3: ts 1.0 is before 2.0"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_by_line(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(TraceError, match=found):
        list(read_trace(trace(tmp_path / "t.csv", text)))


def test_a_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"missing\.csv cannot be read"):
        list(read_trace(tmp_path / "missing.csv"))
