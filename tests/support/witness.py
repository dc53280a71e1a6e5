"""What the provider saw so far, for tests that do something once so many calls have come."""

from support.stack import Stack
from support.waiting import wait_for


def calls(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["calls"])


def in_flight(stack: Stack) -> int:
    return int(stack.simulator.stats()["default"]["in_flight"])


def called(stack: Stack, goal: int, timeout_s: float = 60.0) -> None:
    """Waits for so many calls."""
    wait_for(lambda: calls(stack) >= goal, timeout_s, f"{goal} calls")
