"""Who would answer too late is not asked: a batch's window, and what the fleet knows of the providers' latency."""

from collections import Counter

from support.batches import lines, outcomes, submit, wait_for_end
from support.stack import running_stack

from workers.strategies.records import WARM_UP

SLOW_S = 4.0


def test_a_short_window_goes_to_whoever_can_keep_it() -> None:
    with running_stack(workers=0, LLM_EDGE_CONCURRENCY="20") as stack:
        rows = [
            {"id": name, "endpoint": stack.simulator.base_url_of(name), "priority": n}
            for n, name in enumerate(("slow", "quick"))
        ]
        stack.kill_api()
        stack.configure(rows, routing={"strategy": "failover"})
        stack.start_api()
        stack.start_worker()
        stack.simulator.patch("slow", latency_s=SLOW_S)

        def asked(jobs: int, window: str) -> Counter[str]:
            before = stack.simulator.stats()["slow"]["calls"]
            ended = wait_for_end(stack.client, submit(stack.client, lines(jobs, window), window).id, 30)
            found = outcomes(stack.client, ended)
            assert {row["response"]["status_code"] for row in found.values()} == {200}, found
            slow = stack.simulator.stats()["slow"]["calls"] - before
            return Counter(slow=slow, quick=jobs - slow)

        assert asked(WARM_UP, "24h") == Counter(slow=WARM_UP), "by priority, while nothing is known"
        assert asked(20, "3s") == Counter(quick=20), "four seconds are too long for a window of three"
        assert asked(WARM_UP, "24h") == Counter(slow=WARM_UP), "there is time"
