"""`python -m bench`: what it stores, tells again, publishes and refuses."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import bench.__main__ as command
from bench import onset
from bench.figures import Onset
from bench.machine import Machine
from bench.part import Answer, Run, measured
from bench.report import Measured, Results, report

DOCS = Path(__file__).parents[3] / "docs"
MACHINE = Machine("a processor", 2, 24.0, "Linux", 0.5)


def results(*, quick: bool = False, failure: str | None = None) -> Results:
    found = onset.Onsets([Onset(0.5, 1.5, 1.6, 1.6, 1.7, 1.7, 1.8, 1.8, 1.9, 9.0, 1.1)])
    answer = Answer(msgspec.Raw(msgspec.json.encode(found)), failure)
    return Results((Measured("onset", "python -m bench onset", MACHINE, {"Kafka": "1"}, 3.0, quick, answer),))


def stored(folder: Path, of: Results) -> Path:
    (folder / command.RESULTS).write_bytes(msgspec.json.encode(of))
    return folder


def test_stored_results_are_told_again_with_their_pictures(tmp_path: Path) -> None:
    out = stored(tmp_path, results())

    assert command.main(["--render", "--out", str(out)]) == 0

    text = (out / "report.md").read_text()
    assert text == report(results()).markdown
    for image in report(results()).images:
        assert f"img/{image}" in text
        assert (out / "img" / image).read_text().startswith("<svg")


def test_without_results_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--render", "--out", str(tmp_path)]) == 1
    assert "make bench" in capsys.readouterr().err


def test_a_report_with_a_failed_part_is_written_and_the_command_fails(tmp_path: Path) -> None:
    out = stored(tmp_path, results(failure="no broker"))

    assert command.main(["--render", "--out", str(out)]) == 1
    assert "no broker" in (out / "report.md").read_text()


@pytest.mark.parametrize("poor", [results(quick=True), results(failure="no broker")])
def test_neither_a_quick_run_nor_a_failed_part_is_published(
    poor: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setattr(command, "DOCS", docs)

    assert command.main(["--docs", "--out", str(stored(tmp_path, poor))]) == 1
    assert list(docs.iterdir()) == []


def test_what_is_published_holds_the_raw_results_from_which_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setattr(command, "DOCS", docs)
    assert command.main(["--docs", "--out", str(stored(tmp_path, results()))]) == 0
    first = (docs / "benchmarks.md").read_text()

    assert command.main(["--docs", "--from", str(docs / "benchmarks.json")]) == 0
    assert (docs / "benchmarks.md").read_text() == first


@pytest.mark.parametrize("arguments", [["nonsense"], ["onset", "--render"], ["onset", "--docs"]])
def test_a_wrong_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "python -m bench" in capsys.readouterr().err


def test_a_part_that_cannot_be_measured_leaves_a_reason(tmp_path: Path) -> None:
    answer = measured("nonsense", Run(str(tmp_path / "part")))

    assert answer.failure is not None
    assert "nonsense" in answer.failure


def test_the_published_report_is_what_its_results_tell() -> None:
    """When a part tells its results in other words: `python -m bench --docs --from docs/benchmarks.json`."""
    published = msgspec.json.decode((DOCS / "benchmarks.json").read_bytes(), type=Results)

    made = report(published)

    assert made.failed == ()
    assert made.markdown == (DOCS / "benchmarks.md").read_text()
    assert all((DOCS / "img" / name).read_text() == svg for name, svg in made.images.items())
