"""One stack for the flow tests that leave it as they found it; those that kill things start their own."""

from collections.abc import Iterator

import pytest
from openai import OpenAI
from support.faults import HEAD, Report
from support.pools import BOTH
from support.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    stack.simulator.reset()
    with stack.client as client:
        yield client


REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash[REPORT].rows:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join([HEAD, *(figures.row for figures in rows)]))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where crash tests leave their figures."""
    return request.config.stash[REPORT]


@pytest.fixture(params=BOTH)
def pool(request: pytest.FixtureRequest) -> str:
    """The pool of the workers."""
    return str(request.param)


@pytest.fixture
def stack_of_its_own(pool: str) -> Iterator[Stack]:
    """For tests that kill parts: two workers of 16 calls each, leases of 2 s."""
    with running_stack(LLM_EDGE_CONCURRENCY="16", LLM_EDGE_POOL=pool) as running:
        yield running
