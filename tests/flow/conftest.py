"""One stack for the flow tests that leave it as they found it; those that kill things start their own."""

from collections.abc import Iterator

import pytest
from openai import OpenAI
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


@pytest.fixture
def stack_of_its_own(pool: str) -> Iterator[Stack]:
    """For tests that kill parts: two workers of 16 calls each, leases of 2 s."""
    with running_stack(LLM_EDGE_CONCURRENCY="16", LLM_EDGE_POOL=pool) as running:
        yield running
