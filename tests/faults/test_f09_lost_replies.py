"""F9: commands that were carried out, and whose replies are lost: nothing is doubled, nothing is lost."""

from collections.abc import Callable

import pytest
from support.callers import Callers
from support.faults import Report
from support.full import full
from support.invariants import Accepted, at_rest, settled
from support.redis_way import Command, publish, redis_way, script
from support.stack import Stack, running_stack

JOBS, LONE, CALLERS = 300, 30, 30

LOST: dict[str, tuple[Callable[[Command], bool], int]] = {
    "publish": (publish, 2),
    "finish": (script("finish"), 3),
    "lone_finish": (script("lone_finish"), 3),
    "split": (script("split"), 2),
    "lone_submit": (script("lone_submit"), 3),
    "claim": (script("claim"), 4),
    "lone_claim": (script("lone_claim"), 4),
    "feed": (script("feed"), 4),
}
"""Which commands, and each how-many-th of them."""

SHORT = [("gevent", "publish"), ("gevent", "finish")]
LONG = [("threads", "publish"), ("threads", "finish"), *(("gevent", what) for what in list(LOST)[2:])]


@pytest.mark.parametrize(("pool", "what"), [*SHORT, *(pytest.param(*arm, marks=full) for arm in LONG)])
def test_replies_lost(pool: str, what: str, report: Report) -> None:
    """Some calls fail, so that there are retries to publish; some callers wait, who are answered once."""
    with redis_way() as way:

        def lead_through(stack: Stack) -> None:
            stack.configure()
            stack.part_env = {part: {"REDIS_URL": way.to(stack.valkey.url)} for part in ("api", "worker")}

        with running_stack(configure=lead_through, LLM_EDGE_POOL=pool, LLM_EDGE_CONCURRENCY="16") as stack:
            stack.simulator.patch(latency_s=0.05, error_rate=0.05)
            accepted = Accepted(stack)
            in_all = JOBS + LONE + CALLERS
            with report.of(f"replies lost: {what}", pool, in_all, case="F9") as trial:
                which, every = LOST[what]
                trial.fault(lambda: way.lose(which, every=every))
                accepted.batch(JOBS)
                for n in range(LONE):
                    accepted.lone(f"lone {n}")
                with Callers(stack.base_url, at_once=8) as callers:
                    told = [a.result(60) for a in callers.ask([f"caller {n}" for n in range(CALLERS)])]
                assert len({one.job_id for one in told}) == len({one.answer_id for one in told}) == CALLERS
                accepted.jobs += [one.job_id for one in told]
                settled(accepted, trial)
                trial.figures.faults = way.lost
            assert way.lost > 0
            way.lose(lambda _: False)
            assert trial.figures.again == 0
            assert trial.figures.refused == 0
            at_rest(stack)
