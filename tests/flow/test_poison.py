"""A job that kills its worker again and again fails, with the reason, and nobody else: the short form of tests/faults/test_f13_poison.py."""

from typing import Any

import pytest
from support.batches import TERMINAL, lines, outcomes, submit
from support.poison import Reaper, deadly_line, explained, holder_of, poisoned_stack

from shared.reasons import Reason

JOBS, POISON = 40, 17


@pytest.mark.timeout(240)
def test_a_job_that_kills_its_worker_fails_and_its_neighbours_are_done() -> None:
    rows = lines(JOBS)
    rows[POISON] = deadly_line("poison")
    with poisoned_stack() as stack, stack.client as client:
        batch = submit(client, rows)
        reaper = Reaper(stack, lambda _: holder_of(stack, batch.id, POISON))
        told: dict[str, str] = {}

        def ended() -> Any:
            told.update({w["reason"]: w["message"] for w in explained(stack, batch.id)["waiting"]})
            found = client.batches.retrieve(batch.id)
            return found if found.status in TERMINAL else None

        found = outcomes(client, reaper.until(ended, 120, "the batch to end"))
        assert len(found) == JOBS
        assert [custom_id for custom_id, row in found.items() if row["error"]] == ["poison"]
        assert found["poison"]["error"]["code"] == "worker_killed"
        assert f"died {reaper.deaths['poison']} times" in found["poison"]["error"]["message"]
        assert reaper.deaths["poison"] in {5, 6}
        assert "few at a time" in told[Reason.SUSPECT]
