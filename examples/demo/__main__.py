"""`python -m examples.demo`: a hot advertiser is spread and merged back, and every click counted once."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from devstack import StackError
from examples.demo.errors import DemoError
from examples.demo.screen import Screen
from examples.demo.story import POLICY, Plan, Story
from examples.demo.summary import Verdict
from examples.demo.system import NAMESPACE, ROOT, System
from examples.load import LoadError
from examples.load.trace import TraceError, read_trace

FAILED, INTERRUPTED = 1, 130


def parse(arguments: Sequence[str] | None) -> Plan:
    """What the person asked for; a trace that cannot be replayed is refused before anything starts."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    add = parser.add_argument
    add("--trace", type=Path, help="replay this CSV file (ts,key,id,dimension) instead of the made-up load")
    add("--speed", type=float, default=1.0, help="replay the trace so many times faster (default 1)")
    add("--keep", action="store_true", help="leave everything but the load running and say what to try")
    add("--root", type=Path, default=ROOT / ".demo", help="folder for data and logs (default .demo); emptied")
    add("--picture", type=Path, help="save the picture of the spread key as this SVG file")
    options = parser.parse_args(arguments)
    if options.speed <= 0:
        parser.error("--speed must be above 0")
    if options.trace is not None:
        try:
            for _ in read_trace(options.trace):
                pass
        except TraceError as error:
            parser.error(str(error))
    return Plan(options.root.absolute(), options.trace, options.speed, options.keep, options.picture)


def run(plan: Plan, console: Console) -> int:
    """The whole demo; everything that it started is stopped at its end, unless it is to be kept."""
    system = System(plan.root, tied=not plan.keep)
    story = Story(plan, system)
    code = FAILED
    try:
        story.prologue()
        with Screen(story.watch, console):
            verdicts = story.play()
        code = conclude(verdicts)
        if plan.keep:
            print(what_to_try(plan, system))
    except (DemoError, LoadError, StackError) as error:
        print(f"\nFAILED at: {story.step}\n{error}\nLogs: {plan.root / 'logs'} and {plan.root / 'load-0'}")
    except KeyboardInterrupt:
        print(f"\ninterrupted at: {story.step}; stopping everything")
        code = INTERRUPTED
    finally:
        story.close()
        if not plan.keep or code != 0:
            system.stop()
    return code


def conclude(verdicts: Sequence[Verdict]) -> int:
    """Print the summary; 0 when every promise was kept."""
    print("\n" + "\n".join(map(str, verdicts)))
    kept = all(verdict.kept for verdict in verdicts)
    print("every promise was kept" if kept else "NOT every promise was kept")
    return 0 if kept else FAILED


def what_to_try(plan: Plan, system: System) -> str:
    """What a person may do with a system that was left up."""
    module, kubectl = f"{sys.executable} -m", f"kubectl --kubeconfig {system.kube.kubeconfig} -n {NAMESPACE}"
    return f"""
Everything but the load is still up. Try:
  {kubectl} get hotkeypolicies
  {kubectl} describe hotkeypolicy {POLICY}
  {kubectl} get routingtable {POLICY} -o yaml
  curl '{system.counts_url}/counts?advertiser_id=nike'
  {module} examples.load --bootstrap {system.stack.kafka.bootstrap} --topic clicks \\
      --redis-url {system.stack.redis.url} \\
      --public-keys file:{system.public_keys_file} --directory {plan.root}/again
Stop it:
  {module} devstack --root {plan.root} down"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when every promise was kept, 130 after Ctrl-C, else 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run(parse(arguments), Console())


if __name__ == "__main__":
    sys.exit(main())
