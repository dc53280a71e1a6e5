"""Lone jobs under any interleaving of callers, workers, crashes and time: one outcome each, none lost, both stores step by step the same.

The memory twin is the model. `MemoryFleet` tries it against the rules alone, `TwinFleet` beside a real Valkey.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from support.lone import job, result
from support.lone_doors import Door, MemoryDoor, Places, ValkeyDoor

from shared import suspects
from shared.jobs import Claim, History, Outcome, Split, Try
from shared.lone import JobStatus, LoneJob, LoneJobs, Submitted

T = TypeVar("T")

STEP_S = 70.0
"""Time passes in these steps; every duration below ends between two of them, so that a slow machine changes nothing."""
LEASES_S = (100.0, 310.0)
DELAYS_S = (10.0, 100.0)
PAUSES_S = (0.0, 10.0, 100.0)
WINDOWS_S = (500.0, 50_000.0)
RETENTION_S, DELIVERED_S = 250.0, 120.0

CALLERS = st.sampled_from(["api1", "api2", "api3"])
PRINTS = st.sampled_from(["", "f1", "f2"])
_serials = itertools.count(1)


def timeless(value: Any) -> Any:
    """Without moments, which no two clocks share; what remains must be the same in both stores."""
    if isinstance(value, Submitted):
        return msgspec.structs.replace(value, at=0.0)
    if isinstance(value, Claim):
        slips = [msgspec.structs.replace(s, history=timeless(s.history), expires_at=0.0) for s in value.slips]
        return msgspec.structs.replace(value, claimed_at=0.0, slips=tuple(slips))
    if isinstance(value, History):
        return msgspec.structs.replace(value, since=float(value.since > 0))
    if isinstance(value, LoneJob):
        started, ended = (None if at is None else 0.0 for at in (value.started_at, value.ended_at))
        waits = value.waiting and msgspec.structs.replace(value.waiting, since=0.0, until=0.0)
        return msgspec.structs.replace(
            value,
            created_at=0.0,
            expires_at=0.0,
            started_at=started,
            ended_at=ended,
            waiting=waits,
            history=timeless(value.history),
        )
    if isinstance(value, list | tuple):
        return [timeless(item) for item in value]
    return value


class Fleet(RuleBasedStateMachine):
    """API processes and workers that come, go, crash and come back late."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.doors = self.make_doors()
        self.known: dict[str, Any] = {}
        self.outcomes: dict[str, tuple[JobStatus, bytes]] = {}
        self.gone: set[str] = set()
        self.holders: list[str] = []

    def make_doors(self) -> list[Door]:
        raise NotImplementedError

    def teardown(self) -> None:
        """After any history, what is left runs to its end: no job is lost."""
        try:
            self._run_out()
        finally:
            for door in self.doors:
                door.close()

    def both(self, act: Callable[[LoneJobs], T]) -> T:
        """The same on each store; fails where they do not say the same."""
        found = [act(door.lone) for door in self.doors]
        for other in found[1:]:
            assert timeless(other) == timeless(found[0])
        return found[0]

    @property
    def here(self) -> list[str]:
        return [job_id for job_id in self.known if job_id not in self.gone]

    def a_job(self, data: st.DataObject) -> str | None:
        return data.draw(st.sampled_from(self.here)) if self.here else None

    @initialize(target=claims, data=st.data())
    def begin(self, data: st.DataObject) -> Any:
        """Some work under way, so that few steps lead far."""
        self.start_or_kill_an_api("api1", hears=True)
        for caller, fingerprint, window_s in data.draw(
            st.lists(
                st.tuples(st.sampled_from(["", "api1", "api2"]), PRINTS, st.sampled_from(WINDOWS_S)),
                max_size=4,
            )
        ):
            self.submit(2, caller, fingerprint, window_s)
        return self.claim(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)), LEASES_S[0])

    # the API

    @rule(
        count=st.integers(1, 3),
        caller=st.one_of(st.just(""), CALLERS),
        fingerprint=PRINTS,
        window_s=st.sampled_from(WINDOWS_S),
    )
    def submit(self, count: int, caller: str, fingerprint: str, window_s: float) -> None:
        if len(self.known) >= 12:
            return
        new = [
            job(
                caller=caller,
                id=f"job_{len(self.known) + n:03}",
                fingerprint=fingerprint,
                window_s=window_s,
                retention_s=RETENTION_S,
                delivered_retention_s=DELIVERED_S,
            )
            for n in range(count)
        ]
        self.known |= {made.spec.id: made for made in new}
        assert self.both(lambda lone: lone.submit(new)).known == (False,) * count

    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        if (job_id := self.a_job(data)) is not None:
            assert self.both(lambda lone: lone.submit([self.known[job_id]])).known == (True,)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if (job_id := self.a_job(data)) is not None:
            before = self.both(lambda lone: lone.get(job_id))
            after = self.both(lambda lone: lone.cancel(job_id))
            assert before is not None
            assert after is not None
            expected = before.status if before.status.terminal else JobStatus.CANCELLED
            assert after.status is expected

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if (job_id := self.a_job(data)) is not None:
            self.both(lambda lone: lone.delete(job_id))
            if job_id in self.outcomes:
                assert self.both(lambda lone: lone.get(job_id)) is None
                self.gone.add(job_id)

    @rule(data=st.data(), caller=CALLERS)
    def wait(self, data: st.DataObject, caller: str) -> None:
        if (job_id := self.a_job(data)) is not None:
            self.both(lambda lone: lone.wait(job_id, caller))

    @rule()
    def look_for_unbegun(self) -> None:
        found = self.both(lambda lone: lone.unbegun(sorted(self.known)))
        assert all(job_id not in self.outcomes for job_id in found)

    @rule(data=st.data(), caller=CALLERS, cancel=st.booleans())
    def leave(self, data: st.DataObject, caller: str, cancel: bool) -> None:
        if (job_id := self.a_job(data)) is not None:
            self.both(lambda lone: lone.leave(job_id, caller, cancel=cancel))

    @rule(caller=st.one_of(CALLERS, st.just("")), fingerprint=st.sampled_from(["f1", "f2"]))
    def attach(self, caller: str, fingerprint: str) -> None:
        found = self.both(lambda lone: lone.attach("default", fingerprint, caller))
        if found is not None:
            assert self.known[found].spec.fingerprint == fingerprint
            assert found in self.here
            assert self.outcomes.get(found, (None, b"a line"))[1], (
                "what never ran is no answer to a repetition"
            )

    @rule(caller=CALLERS, hears=st.booleans())
    def start_or_kill_an_api(self, caller: str, hears: bool) -> None:
        for door in self.doors:
            door.hear(caller) if hears else door.deafen(caller)

    @rule(after=st.one_of(st.none(), st.integers(0, 12)), limit=st.integers(1, 4))
    def page(self, after: int | None, limit: int) -> None:
        cursor = None if after is None else f"job_{after:03}"
        self.both(lambda lone: lone.page("default", after=cursor, limit=limit))

    # the fleet

    @rule(
        target=claims,
        waited=st.integers(0, 3),
        rest=st.integers(0, 3),
        lease_s=st.sampled_from(LEASES_S),
    )
    def claim(self, waited: int, rest: int, lease_s: float) -> Any:
        before = self._places()
        self.holders.append(holder := f"w{len(self.holders)}")
        claim = self.both(lambda lone: lone.claim(waited=waited, rest=rest, holder=holder, lease_s=lease_s))
        if claim is None:
            return multiple()
        assert len(claim.slips) <= waited + rest
        for slip in claim.slips:
            assert slip.id not in self.outcomes, "what has ended, or was cancelled, never runs"
            assert slip.id not in before.held, "what is held is not handed out"
        return claim

    @rule(claim=claims, data=st.data(), ok=st.booleans(), left=st.booleans())
    def finish(self, claim: Claim, data: st.DataObject, ok: bool, left: bool) -> None:
        """By the holder, or by one who lost his lease long ago. Callers may have `left` just then."""
        jobs = data.draw(st.lists(st.sampled_from([s.id for s in claim.slips]), min_size=1, max_size=3))
        self._finish(jobs, ok=ok)
        for job_id in sorted(set(jobs) & set(self.here)) if left else ():
            self._leave_unheard(job_id)

    def _leave_unheard(self, job_id: str) -> None:
        self.both(lambda lone: lone.leave(job_id, "api1", cancel=True))
        if fingerprint := self.known[job_id].spec.fingerprint:
            self.attach("api2", fingerprint)

    def _finish(self, jobs: list[str], *, ok: bool) -> None:
        serial = next(_serials)
        outcomes: list[Outcome] = [
            msgspec.structs.replace(result(job_id, ok=ok), line=f"{job_id} {serial}".encode())
            for job_id in jobs
        ]
        done = self.both(lambda lone: lone.finish(outcomes, writer="w1", serial=serial))
        assert self.both(lambda lone: lone.finish(outcomes, writer="w1", serial=serial)) == done
        for outcome, accepted in zip(outcomes, done.accepted, strict=True):
            assert accepted == (outcome.id not in self.outcomes and outcome.id not in self.gone)
            if accepted:
                status = JobStatus.COMPLETED if ok else JobStatus.FAILED
                self.outcomes[outcome.id] = (status, outcome.line)

    @rule(
        claim=claims,
        data=st.data(),
        kind=st.sampled_from(["retry", "park"]),
        delay_s=st.sampled_from(DELAYS_S),
        charged_anew=st.tuples(st.booleans(), st.booleans()),
        why=st.sampled_from([("", False), ("provider_failing", False), ("breaker_open", True)]),
        tries=st.integers(0, 2),
    )
    def split(
        self,
        claim: Claim,
        data: st.DataObject,
        kind: Any,
        delay_s: float,
        charged_anew: tuple[bool, bool],
        why: tuple[str, bool],
        tries: int,
    ) -> None:
        jobs = data.draw(st.sets(st.sampled_from([s.id for s in claim.slips]), min_size=1))
        charged, anew = charged_anew
        split = Split(
            kind=kind,
            jobs=tuple(sorted(jobs)),
            delay_s=delay_s,
            provider="p1",
            charged=charged,
            anew=anew,
            reason=why[0],
            wait_for=("p1", "p2"),
            blocked=why[1],
            tries=((Try("p1", 500, "boom", 0.5, charged, 1.0),) * tries,) * len(jobs),
        )
        held = {job_id for job_id, token in self._places().held.items() if token == claim.token}
        moved = self.both(lambda lone: lone.split(claim.ref, claim.token, split))
        assert (moved is not None) == bool(jobs & held), "only the holder may"

    @rule(claim=claims, lease_s=st.sampled_from(LEASES_S))
    def renew(self, claim: Claim, lease_s: float) -> None:
        self.both(lambda lone: lone.renew([(claim.ref, claim.token)], lease_s=lease_s))

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        self.both(lambda lone: lone.release(claim.ref, claim.token))

    @rule(claim=claims, data=st.data())
    def begin_a_call(self, claim: Claim, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from([s.id for s in claim.slips]))
        self.both(lambda lone: lone.begin(job_id))

    @rule()
    def decline(self) -> None:
        self.both(lambda lone: lone.decline())

    @rule()
    def hint(self) -> None:
        if self.both(lambda lone: lone.wants_hint()):
            assert not self.both(lambda lone: lone.wants_hint()), "one at a time"

    # time

    @rule(steps=st.sampled_from([1, 3, 12]))
    def pass_time(self, steps: int) -> None:
        for door in self.doors:
            door.pass_time(steps * STEP_S)

    @rule(deaths=st.integers(1, 6), steps=st.sampled_from([1, 3]))
    def die_again_and_again(self, deaths: int, steps: int) -> None:
        """Whoever gets anything dies of it."""
        for _ in range(deaths):
            self.claim(2, 2, LEASES_S[0])
            self.pass_time(steps)
            self.reap(100)
            self.an_outcome_never_changes()
            self.one_suspect_is_out_by_itself()

    @rule(most=st.sampled_from([1, 2, 100]), beats=st.booleans())
    def reap(self, most: int, *, beats: bool = False) -> None:
        """What a holder has lost counts a death, unless it `beats`."""
        for door, holder in itertools.product(self.doors, self.holders if beats else ()):
            door.beat(holder)
        self.both(lambda lone: lone.reap(most=most))
        for job_id in set(self.here) - set(self._found()):
            assert job_id in self.outcomes, f"{job_id} is lost"
            self.gone.add(job_id)

    # what always holds

    def _places(self) -> Places:
        found = [door.places() for door in self.doors]
        for other in found[1:]:
            assert other == found[0]
        return found[0]

    def _found(self) -> dict[str, LoneJob]:
        jobs, more = self.both(lambda lone: lone.page("default", after=None, limit=50))
        assert not more
        return {found.spec.id: found for found in jobs}

    @invariant()
    def an_outcome_never_changes(self) -> None:
        jobs = self._found()
        assert set(jobs) == set(self.here), "lost, or back from the dead"
        for job_id, found in jobs.items():
            now = (found.status, found.line)
            if found.status.terminal:
                assert self.outcomes.setdefault(job_id, now) == now
            else:
                assert job_id not in self.outcomes, "it had ended"

    @invariant()
    def one_suspect_is_out_by_itself(self) -> None:
        places = self._places()
        assert len(places.out) <= 1
        for job_id in places.out:
            assert list(places.held.values()).count(places.held[job_id]) == 1

    @invariant()
    def every_open_job_is_in_one_place(self) -> None:
        places = self._places()
        ready = places.now + places.soon
        assert len(ready) == len(set(ready))
        for job_id in self.here:
            where = [
                job_id in ready,
                job_id in places.later,
                job_id in places.held,
                job_id in places.suspects,
            ]
            if job_id in self.outcomes:
                assert not any(where[1:])  # on the ready list its name may stand until somebody comes to it
            else:
                assert sum(where) == 1, f"{job_id} is in {sum(where)} places"

    def _run_out(self) -> None:
        for _ in range(100):
            if all(job_id in self.outcomes for job_id in self.known):
                return
            for door in self.doors:
                door.pass_time(5 * STEP_S)
            self.reap(100)
            self.an_outcome_never_changes()
            claim = self.both(lambda lone: lone.claim(waited=50, rest=50, holder="w2", lease_s=LEASES_S[0]))
            if claim is not None:
                self._finish([slip.id for slip in claim.slips], ok=True)
        raise AssertionError("jobs that never end")


class MemoryFleet(Fleet):
    def make_doors(self) -> list[Door]:
        return [MemoryDoor()]


class TwinFleet(Fleet):
    url: ClassVar[str]

    def make_doors(self) -> list[Door]:
        return [MemoryDoor(), ValkeyDoor(self.url)]


@pytest.fixture(autouse=True, scope="module")
def _server(valkey_url: str) -> Iterator[None]:
    TwinFleet.url = valkey_url
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suspects, "PAUSES_S", PAUSES_S)
        yield


TestMemoryFleet = MemoryFleet.TestCase
TestMemoryFleet.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)

TestTwinFleet = TwinFleet.TestCase
TestTwinFleet.settings = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
