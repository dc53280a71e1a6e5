"""What every tier has: the pool of the workers, and the table of what befell a stack and what became of its jobs.

`make verify` runs the unit tests once more with `--hypothesis-profile=thorough`.
"""

import pytest
from hypothesis import settings
from support.faults import HEAD, Report
from support.pools import BOTH

settings.register_profile("unit", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)

REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="store_true",
        help="renew the golden files of records that have changed, and keep the examples of what they were",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(config.getoption("hypothesis_profile") or "unit")
    config.stash[REPORT] = Report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash[REPORT].rows:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join([HEAD, *(figures.row for figures in rows)]))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where tests that do harm leave their figures."""
    return request.config.stash[REPORT]


@pytest.fixture(params=BOTH)
def pool(request: pytest.FixtureRequest) -> str:
    """The pool of the workers."""
    return str(request.param)
