"""A pytest plugin that runs tests on a mutant: `pytest -p tests.simulation.mutants.plugin --mutant NAME`.

The product is broken before any test is imported, so that tests which call its functions by their own names
call the broken ones.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.simulation.mutants.catalogue import MUTANTS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", choices=sorted(MUTANTS), help="break the product as this mutant does")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--mutant")
    if name is not None:
        broken = ExitStack()
        broken.enter_context(MUTANTS[name].patch())
        config.add_cleanup(broken.close)
