"""How many calls at a time a provider bears, found by a fleet of real workers that is not told: the simulator is the witness."""

import sys

import pytest
from support.adaptive import BATCH_CALLS, observe

SPAN_S = 60.0
NEAR = 0.2
THROUGHPUT = 0.75
"""Of the best; 0.81 to 0.98 were measured on machines busy with other things."""

pytestmark = [pytest.mark.verify, pytest.mark.alone, pytest.mark.timeout(400)]


@pytest.mark.parametrize("capacity", [12, 40])
def test_a_fleet_settles_near_what_its_provider_bears_and_fails_no_job(capacity: int) -> None:
    run = observe(capacity, SPAN_S)
    sys.stdout.write(f"{run.in_words}\n")
    for n, second in enumerate(run.seconds):
        sys.stdout.write(f"{n:4} {second.in_flight:6.1f} {second.answered:4} {second.refused:4}\n")
    assert run.failed == 0
    assert capacity * (1 + NEAR) < BATCH_CALLS, "it has to hold itself back"
    assert run.in_flight == pytest.approx(capacity, rel=NEAR)
    assert run.of_best > THROUGHPUT
