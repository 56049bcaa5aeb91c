"""`make fuzz`: throws nearly right inputs at every decoder; ends with 1 at the first finding.

Each input follows from the seed, the decoder's name and its number; a finding prints the command that
repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from random import Random

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import ACCEPTED, REFUSED, Target, targets

SLOW_SECONDS = 2.0  # no input is that much work, however long it is
HANGING_SECONDS = 60  # after so long without an end the process shows where it stands, and stops
_WATCHED = 100  # inputs under one watch: to set it takes longer than most of them


def fuzz(target: Target, seed: int, numbers: range) -> Counter[str]:
    """Check these inputs; how many became what. Raises `SystemExit` with words at a finding."""
    outcomes: Counter[str] = Counter()
    for index in numbers:
        if index % _WATCHED == 0:
            watch = HANGING_SECONDS + _WATCHED * SLOW_SECONDS
            faulthandler.dump_traceback_later(watch, exit=True, file=sys.__stderr__ or sys.stderr)
        began = time.perf_counter()
        try:
            outcomes[target.run(seed, index)] += 1
        except Exception:
            raise SystemExit(_finding(target, seed, index, traceback.format_exc(limit=-6))) from None
        if (took := time.perf_counter() - began) > SLOW_SECONDS:
            raise SystemExit(_finding(target, seed, index, f"it took {took:.1f} s"))
    faulthandler.cancel_dump_traceback_later()
    return outcomes


def _finding(target: Target, seed: int, index: int, what: str) -> str:
    data = mutated(Random(f"{seed}/{target.name}/{index}"), target.seeds)
    return (
        f"{target.name}, input {index}: {data[:300]!r} ({len(data)} bytes)\n{what}\n"
        f"again: python -m tests.fuzz {target.name} --seed {seed} --from {index} --inputs 1"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when there was no finding."""
    known = {target.name: target for target in targets()}
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "decoders", nargs="*", metavar="DECODER", help=f"of {', '.join(known)} (default: all)"
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="for each decoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first input")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.decoders if name not in known]:
        parser.error(f"no decoder is called {unknown[0]}: there are {', '.join(known)}")
    print(f"seed {options.seed}")
    print(f"{'decoder':<12}{'inputs':>9}{ACCEPTED:>10}{REFUSED:>10}{'inputs/s':>10}")
    for name in options.decoders or known:
        began = time.perf_counter()
        found = fuzz(known[name], options.seed, range(options.first, options.first + options.inputs))
        rate = options.inputs / (time.perf_counter() - began)
        print(
            f"{name:<12}{options.inputs:>9}{found[ACCEPTED]:>10}{found[REFUSED]:>10}{rate:>10.0f}", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
