"""`make test`: what it takes for passed, and what it shows meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import run, side_by_side
from tests.progress import Progress
from tests.side_by_side import Job

PASS, FAIL = (sys.executable, "-c", ""), (sys.executable, "-c", "raise SystemExit(3)")


def code(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_a_part_fails_with_its_first_failure_and_still_runs_the_rest(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    touch = code(f"open({str(seen)!r}, 'w')")
    assert run.run_part(run.Part("lint", (PASS, FAIL, touch), 30)).code == 3
    assert seen.exists()


def test_a_part_that_does_not_end_is_ended_and_failed() -> None:
    endless = code("import time\nwhile True: time.sleep(1)")
    assert run.run_part(run.Part("stack", (endless,), 0)).word == "timed out"


def test_a_folder_without_tests_is_a_failure(tmp_path: Path) -> None:
    (job,) = run.jobs(["chart"], slow=False)
    options = [each for each in job.command if not each.startswith("tests/chart/")]
    command = [each.replace("{progress}", str(tmp_path / "progress")) for each in (*options, str(tmp_path))]
    assert (
        subprocess.run(command, capture_output=True, check=False).returncode
        == pytest.ExitCode.NO_TESTS_COLLECTED
    )


def test_the_slow_tests_run_only_when_all_are_asked_for() -> None:
    assert all("not slow" in job.command for job in run.jobs(["stack"], slow=False))
    assert not any("not slow" in job.command for job in run.jobs(["stack"], slow=True))


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        run.main(["stacks"])


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_jobs_side_by_side_are_all_waited_for_and_each_is_shown_in_one_piece(
    lanes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [
        Job(
            f"job {number}",
            code(f"print('said {number}'); print('and more'); raise SystemExit({number})"),
            60,
        )
        for number in (0, 3)
    ]

    outcomes = {each.name: each for each in side_by_side.run(jobs, lanes)}

    assert {name: each.word for name, each in outcomes.items()} == {"job 0": "ok", "job 3": "FAILED (exit 3)"}
    shown = capfd.readouterr().out
    assert "said 0\nand more\n" in shown
    assert "said 3\nand more\n" in shown


def test_a_job_that_does_not_end_is_ended_failed_and_shown(capfd: pytest.CaptureFixture[str]) -> None:
    endless = code("import time\nprint('began', flush=True)\nwhile True: time.sleep(1)")

    (outcome,) = side_by_side.run([Job("endless", endless, 1)], 1)

    assert outcome.word == "timed out"
    assert "began" in capfd.readouterr().out


def test_while_jobs_run_it_says_how_far_each_is_and_what_failed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a job that ends when it was told of
    monkeypatch.setattr(side_by_side, "TELL_SECONDS", 0.0)
    script = (
        "import sys, time\n"
        "open(sys.argv[1], 'w').write('total 12\\ndone\\nfailed tests/a.py::test_b[c d]\\ndone\\n')\n"
        "time.sleep(2)"
    )

    side_by_side.run([Job("stack", (*code(script), "{progress}"), 60), Job("later", PASS, 60)], 1)

    shown = capfd.readouterr().out
    assert "stack 2 of 12 (1 failed); to come: later\n" in shown
    assert shown.count("FAILED tests/a.py::test_b[c d]\n") == 1


def test_when_it_is_interrupted_it_shows_what_each_job_has_said_and_ends_all() -> None:
    # given two jobs that never end, run by a program of their own
    endless = (
        "import os, sys, time\n"
        "print('I am', os.getpid(), flush=True)\n"
        "open(sys.argv[1], 'w').write('total 7\\n')\n"
        "while True: time.sleep(1)"
    )
    script = (
        "from tests import side_by_side\n"
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "side_by_side.TELL_SECONDS = 0.0\n"
        f"job = (sys.executable, '-c', {endless!r}, '{{progress}}')\n"
        "side_by_side.run([side_by_side.Job(name, job, 600) for name in ('one', 'two')], 2)\n"
    )
    with subprocess.Popen(
        code(script), cwd=side_by_side.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert any("one 0 of 7; two 0 of 7" in line for line in process.stdout), "both have begun"

        # when
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=60)

    # then
    pids = [int(line.split()[-1]) for line in shown.splitlines() if line.startswith("I am ")]
    assert len(pids) == 2, shown
    assert "=== one: interrupted" in shown
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_plugin_tells_of_each_test_and_of_those_that_failed(tmp_path: Path) -> None:
    # given
    tests = tmp_path / "test_some.py"
    tests.write_text("def test_passes(): pass\ndef test_fails(): assert False\n")
    file = tmp_path / "progress"

    # when
    options = ("-q", "-p", "tests.progress", "--progress-file", str(file), "-p", "no:cacheprovider")
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests)],
        cwd=side_by_side.ROOT,
        capture_output=True,
        check=False,
    )

    # then
    seen = Progress.read(file)
    assert (seen.total, seen.done, len(seen.failed)) == (2, 2, 1)
    assert seen.failed[0].endswith("test_some.py::test_fails")


def test_before_tests_are_collected_it_says_so(tmp_path: Path) -> None:
    assert str(Progress.read(tmp_path / "none")) == "collecting"


@pytest.mark.parametrize("part", dict.fromkeys(group.part for group in run.GROUPS))
def test_every_test_of_a_folder_is_in_one_of_its_groups(part: str) -> None:
    grouped = [file for files in run.files_of(part).values() for file in files]
    files = [
        str(path.relative_to(side_by_side.ROOT))
        for path in (side_by_side.ROOT / "tests" / part).rglob("test_*.py")
    ]

    assert files
    assert sorted(grouped) == sorted(files)
