"""What every tier has: the pool of the workers, and the table of what befell a stack and what became of its jobs."""

import pytest
from support.faults import HEAD, Report
from support.pools import BOTH

REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
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
