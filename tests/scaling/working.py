"""Workers that call no provider: everything else of a job's way, by the same stores, scripts and groups as a real worker's."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from bench.memory import answered, texts
from scaling.costs import Cost, Meter
from scaling.filling import CATALOGUE
from scaling.scene import Scene
from support.ledgers import worker

from shared.catalogue import Breaker
from shared.finalize import finalize, roll_up
from shared.gate import Ask, Candidate, Flight, Report, candidate_of
from shared.jobs import SEGMENT, BatchSpec, Claim, Outcome
from shared.limits import Limit, Limits

SHARD = 50
TOGETHER = 8
"""Asks of one exchange with the gate, and outcomes of one finish: what rides together in a busy worker."""

ANSWER_BYTES = 1000
LEASE_S = 600.0
CAPACITY = 153
"""Jobs a worker with the default settings wants at once."""

BREAKER = Breaker()
_MOST = 100
_T = TypeVar("_T")
Whole = tuple[str, int]
"""A batch, and the number of a segment of it that has ended."""


@dataclass
class Phases:
    """What each phase has cost, how many jobs went through it, and how long each of its calls took."""

    costs: dict[str, Cost] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)

    def per_job(self, name: str) -> Cost:
        return self.costs[name].per(max(1, self.jobs[name]))

    def ms(self, name: str, share: float) -> float:
        took = sorted(self.took[name])
        return 1000 * took[min(len(took) - 1, int(share * len(took)))]

    def run(self, scene: Scene, name: str, jobs: int, steps: Iterator[Callable[[], _T]]) -> list[_T]:
        """All `steps` in turn; `jobs` is how many they carry between them."""
        meter, took, made = Meter(scene.client), self.took.setdefault(name, []), []
        for step in steps:
            started = time.perf_counter()
            made.append(step())
            took.append(time.perf_counter() - started)
        self.costs[name] = self.costs.get(name, Cost()) + meter.spent()
        self.jobs[name] = self.jobs.get(name, 0) + jobs
        return made


class SimWorker:
    """What one worker says to the ledger and the gate."""

    def __init__(self, scene: Scene, name: str, limits: Limits | None = None) -> None:
        self.name = name
        self._scene = scene
        self._serial = itertools.count(1)
        self._asked = itertools.count(1)
        self._candidate = candidate_of(
            CATALOGUE.providers[0], "m", "/v1/chat/completions", "key", BREAKER, limits
        )

    def beat(self, capacity: int = CAPACITY) -> None:
        self._scene.ledger.beat(worker(self.name, capacity))

    def claim(self, ref: str) -> Claim:
        found = self._scene.ledger.claim(ref, holder=self.name, lease_s=LEASE_S)
        assert found is not None, f"{ref} was handed out and cannot be claimed"
        return found

    def read(self, claim: Claim) -> int:
        """The shard's lines, cut from its input file: how many."""
        places = [(slip.offset, slip.length) for slip in claim.slips]
        return len(self._scene.files.slices(claim.input_file_id, places))

    def call(self, asks: int, ended: int) -> None:
        """One exchange: leave for so many calls, and word of so many that were answered."""
        found = self._scene.gate.exchange(
            [Ask(f"{self.name}:{next(self._asked)}", (self._candidate,)) for _ in range(asks)],
            [_answered(f"{self.name}:r", self._candidate) for _ in range(ended)],
            settings=BREAKER,
            sender=self.name,
            serial=next(self._serial),
            spread=0.5,
            flight=Flight({limit.scope: asks for limit in self._candidate.limits or ()}),
        )
        assert all(verdict.choice == 0 for verdict in found.verdicts), found

    def finish(self, batch_id: str, outcomes: Sequence[Outcome]) -> list[Whole]:
        """The segments that became whole; refused outcomes are an error here: each job is finished once."""
        found = self._scene.ledger.finish(batch_id, outcomes, writer=self.name, serial=next(self._serial))
        assert all(found.accepted), f"{batch_id}: a job was finished before"
        return [(batch_id, segment) for segment in found.segments]

    def release(self, claim: Claim) -> None:
        assert self._scene.ledger.release(claim.ref, claim.token)


def _answered(permit: str, candidate: Candidate) -> Report:
    return Report(permit, candidate, 0, "answered", duration_s=0.8, bucket=20, output_tokens=60)


class Crew:
    """So many workers, who take shards in turn."""

    def __init__(
        self, scene: Scene, workers: int, *, together: int = TOGETHER, limit: float = 0, name: str = "w"
    ) -> None:
        """`limit`: calls at a time of the provider; 0 is none. `name` begins the workers' names."""
        self._scene = scene
        self._together = together
        limits = (Limit("p:p", "concurrency", 1, limit),) if limit else None
        self.workers = [SimWorker(scene, f"{name}{n}", limits) for n in range(workers)]
        self._answers = answered(texts(ANSWER_BYTES - 40))

    def beat(self, room: int = 0) -> None:
        """All are alive, and want at least `room` jobs between them."""
        for one in self.workers:
            one.beat(max(CAPACITY, -(-room // len(self.workers))))

    def work(self, jobs: int, into: Phases) -> int:
        """Hand out, claim, read, call, finish, release and roll up about so many jobs: how many it were."""
        refs: list[str] = []
        scene = self._scene
        while len(refs) * SHARD < jobs:
            (some,) = into.run(
                scene, "hand out", 0, iter([partial(scene.ledger.feed, shard_size=SHARD, most=_MOST)])
            )
            refs += some
            if len(some) < _MOST:
                break
        hands = list(zip(refs, itertools.cycle(self.workers), strict=False))
        claims = into.run(scene, "claim", 0, (partial(one.claim, ref) for ref, one in hands))
        count = sum(len(claim.slips) for claim in claims)
        into.jobs["hand out"] += count
        into.jobs["claim"] += count
        held = [(one, claim) for (_, one), claim in zip(hands, claims, strict=True)]
        into.run(scene, "read its line", count, (partial(o.read, c) for o, c in held))
        into.run(scene, "gate", count, self._calls(held))
        whole = into.run(scene, "finish", count, self._finishes(held))
        into.run(scene, "release", count, (partial(o.release, c) for o, c in held))
        self._roll_up(list(itertools.chain.from_iterable(whole)), into)
        return count

    def _calls(self, held: Sequence[tuple[SimWorker, Claim]]) -> Iterator[Callable[[], None]]:
        """In each exchange, the asks of these calls and the reports of those before."""
        before: dict[str, int] = {}
        for one, claim in held:
            for size in _groups(len(claim.slips), self._together):
                ended = before.get(one.name, 0)
                before[one.name] = size
                yield partial(one.call, size, ended)
        for one in self.workers:
            if ended := before.get(one.name, 0):
                yield partial(one.call, 0, ended)

    def _finishes(self, held: Sequence[tuple[SimWorker, Claim]]) -> Iterator[Callable[[], "list[Whole]"]]:
        for one, claim in held:
            at = 0
            for size in _groups(len(claim.slips), self._together):
                some = [self._outcome(claim, slip.index) for slip in claim.slips[at : at + size]]
                at += size
                yield partial(one.finish, claim.batch_id, some)

    def _outcome(self, claim: Claim, index: int) -> Outcome:
        found = self._answers(index)
        return Outcome(
            index=index, ok=True, line=found.line, provider="p", usage=found.usage, cost_nanos=7, ref=claim.ref,
            token=claim.token, began_at=claim.claimed_at,
        )  # fmt: skip

    def _roll_up(self, segments: Sequence[Whole], into: Phases) -> None:
        scene = self._scene
        specs: dict[str, BatchSpec] = {}
        jobs = 0
        for batch_id, segment in segments:
            batch = scene.ledger.get(batch_id)
            assert batch is not None
            specs[batch_id] = batch.spec
            jobs += min(SEGMENT, batch.total - segment * SEGMENT)
        door = partial(roll_up, ledger=scene.ledger, files=scene.files)
        into.run(scene, "roll up", jobs, (partial(door, specs[b], n) for b, n in segments))


def _groups(count: int, size: int) -> Iterator[int]:
    for at in range(0, count, size):
        yield min(size, count - at)


def end_batches(scene: Scene, into: Phases) -> list[str]:
    """All that wait for it: their ids."""
    ended: list[str] = []
    while (chore := scene.ledger.take_chore(LEASE_S)) is not None:
        batch = scene.ledger.get(chore.batch_id)
        assert batch is not None

        door = partial(finalize, ledger=scene.ledger, files=scene.files, keep=lambda: True)
        into.run(scene, "end", batch.total, iter([partial(door, chore, batch)]))
        ended.append(batch.spec.id)
    return ended


def delete(scene: Scene, batch_ids: Sequence[str], into: Phases) -> None:
    """Their files; what is left of a batch's record goes by itself."""
    for batch_id in batch_ids:
        batch = scene.ledger.get(batch_id)
        assert batch is not None
        files = (batch.spec.input_file_id, batch.spec.output_file_id, batch.spec.error_file_id)
        into.run(scene, "delete", batch.total, (partial(scene.files.delete, name) for name in files))
