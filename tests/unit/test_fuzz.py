"""The fuzz harness: a little of what `make fuzz` does, and that it would tell."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.__main__ import fuzz, main
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import ACCEPTED, REFUSED, Target, targets

INPUTS = 300


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_nearly_right_inputs_do_a_decoder_no_harm(target: Target) -> None:
    outcomes = fuzz(target, 7, range(INPUTS))

    assert sum(outcomes.values()) == INPUTS
    assert min(outcomes[ACCEPTED], outcomes[REFUSED]) > 0, "it tries both sides of what is right"


@pytest.mark.parametrize("name", [target.name for target in targets()])
def test_the_golden_inputs_themselves_are_accepted(name: str) -> None:
    (target,) = (each for each in targets() if each.name == name)

    assert {target.check(data, Random(1)) for data in target.seeds} == {ACCEPTED}


def test_an_input_follows_from_its_seed_and_number() -> None:
    seeds = targets()[0].seeds

    made = [mutated(Random("1/table/17"), seeds) for _ in range(2)]

    assert made[0] == made[1]
    assert len({mutated(Random(f"1/table/{number}"), seeds) for number in range(50)}) > 25


def check_that_finds(data: bytes, random: Random) -> str:
    assert not data.endswith(b"}"), "accepted wrongly"
    return REFUSED


def test_a_finding_ends_it_and_names_the_command_that_repeats_it() -> None:
    planted = Target("planted", (b"{}",), check_that_finds)

    with pytest.raises(SystemExit) as ended:
        fuzz(planted, 3, range(100))

    assert "accepted wrongly" in str(ended.value)
    assert "python -m tests.fuzz planted --seed 3 --from " in str(ended.value)


def test_it_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event", "--inputs", "50", "--seed", "5"]) == 0

    told = capsys.readouterr().out
    assert "seed 5" in told
    assert "event" in told
