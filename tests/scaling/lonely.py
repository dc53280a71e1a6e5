"""The same of lone jobs, which have a record each: a life, phase by phase, with few and with many queued."""

import itertools
from collections.abc import Iterator
from functools import partial

from bench.memory import texts
from bench.report import Finding
from scaling.costs import COLUMNS
from scaling.filling import LINE_BYTES
from scaling.scene import Scene
from scaling.working import ANSWER_BYTES, LEASE_S, SHARD, TOGETHER, Phases
from support.batches import jsonl
from support.lone import job

from shared.jobs import Claim, Outcome
from shared.lone import NewJob

SAMPLE = 5_000
ORDER = ("submit", "claim", "finish", "release", "delete")


def run(scene: Scene, jobs: int) -> Finding:
    rows, queued, cpu, memory = [], 0, [], []
    goals = sorted({max(SAMPLE, n) for n in (jobs // 500, jobs // 50, jobs // 5)})
    for goal in goals:
        phases = Phases()
        submit(scene, goal - queued, phases)
        work(scene, SAMPLE, phases)
        queued = goal - SAMPLE
        each = [phases.per_job(name) for name in ORDER]
        cpu.append(sum(cost.cpu_us for cost in each))
        memory.append(phases.costs["submit"].memory / phases.jobs["submit"])
        rows.append(
            [
                f"{goal:,}",
                f"{memory[-1]:,.0f}",
                *(f"{cost.cpu_us:.1f}" for cost in each),
                f"{cpu[-1]:.1f}",
                *(
                    f"{sum(getattr(cost, name) for cost in each):,.1f}"
                    for name in ("scripts", "commands", "bytes_in", "bytes_out")
                ),
                *(
                    f"{phases.ms(name, 0.5):.2f} / {phases.ms(name, 0.99):.2f}"
                    for name in ("claim", "finish")
                ),
            ]
        )
    return Finding(
        title="Lone jobs queued, and what one more costs; Redis CPU in µs a job",
        columns=[
            "queued",
            "bytes a job",
            *ORDER,
            "in all",
            *COLUMNS[:4],
            "a claim of 50, P50 / P99 ms",
            "a finish",
        ],
        rows=rows,
        notes=[
            (
                f"Bodies of {LINE_BYTES} bytes, nobody waiting; {TOGETHER} ride in a submit and in a finish; the gate's part is that of a batch's"
                " job. `delete` is what happens when the retention is over, too."
            )
        ],
        figures={"cpu_us": cpu, "bytes": memory},
    )


def submit(scene: Scene, jobs: int, into: Phases) -> None:
    bodies = texts(LINE_BYTES - 40)

    def groups() -> Iterator[list[NewJob]]:
        for first in range(0, jobs, TOGETHER):
            some = min(TOGETHER, jobs - first)
            yield [job(body=jsonl([{"model": "m", "x": next(bodies)}])) for _ in range(some)]

    into.run(scene, "submit", jobs, (partial(scene.lone.submit, group) for group in groups()))


def work(scene: Scene, jobs: int, into: Phases) -> int:
    """Claim, finish, release and delete so many."""
    lone = scene.lone
    one = partial(lone.claim, waited=0, rest=SHARD, holder="w0", lease_s=LEASE_S)
    found = into.run(scene, "claim", 0, (one for _ in range(jobs // SHARD)))
    claims = [claim for claim in found if claim is not None]
    ids = [slip.id for claim in claims for slip in claim.slips]
    into.jobs["claim"] += len(ids)
    into.run(scene, "finish", len(ids), (partial(_finish, scene, *group) for group in _groups(claims)))
    into.run(scene, "release", len(ids), (partial(lone.release, c.ref, c.token) for c in claims))
    into.run(scene, "delete", len(ids), (partial(lone.delete, job_id) for job_id in ids))
    return len(ids)


def _groups(claims: list[Claim]) -> Iterator[tuple[int, list[Outcome]]]:
    answers, serials = texts(ANSWER_BYTES - 40), itertools.count(1)
    for claim in claims:
        for first in range(0, len(claim.slips), TOGETHER):
            some = claim.slips[first : first + TOGETHER]
            yield next(serials), [_outcome(slip.id, next(answers)) for slip in some]


def _outcome(job_id: str, text: str) -> Outcome:
    line = jsonl([{"id": job_id, "response": text}])
    return Outcome(index=0, id=job_id, ok=True, line=line, provider="p", began_at=1.0)


def _finish(scene: Scene, serial: int, outcomes: list[Outcome]) -> None:
    found = scene.lone.finish(outcomes, writer="lonely", serial=serial)
    assert all(found.accepted), "a lone job was finished before"
