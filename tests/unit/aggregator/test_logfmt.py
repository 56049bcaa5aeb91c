"""A log line is one line, whatever it tells."""

from __future__ import annotations

from hotkey_aggregator.logfmt import line


def test_plain_values_stand_as_they_are_and_others_are_quoted() -> None:
    assert line("started", topic="clicks", port=8087) == "event=started topic=clicks port=8087"
    assert line("bad", detail='two words "and" more\nlines', empty="") == (
        'event=bad detail="two words \\"and\\" more\\nlines" empty=""'
    )
    assert "\u202e" not in line("bad", detail="\u202ertl")
