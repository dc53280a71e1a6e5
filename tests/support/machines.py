"""How long hypothesis plays with a state machine whose every step may be a round trip to Valkey."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine


def case(machine: type[RuleBasedStateMachine], *, examples: int) -> Any:
    """The machine as a test of 40 steps an example."""
    found = machine.TestCase
    found.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return found
