"""Lone jobs on Redis or Valkey. The contract: `shared.lone.LoneJobs`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import redis

from shared import ledger, lone
from shared.errors import NewerRecordError
from shared.forbearance import FORBEAR_S, SILENCE_S
from shared.jobs import TRIES, Claim, Finished, Outcome, Slip, Split, Suspect, Waiting, served
from shared.keys import Keys
from shared.ledger import Held
from shared.lone import LoneJob, LoneReaped, LoneSpec, NewJob, Submitted
from shared.newer import NewerSeen
from shared.redis_client import store_errors
from shared.redis_ledger import EARLY_S, WRITER_TTL_S
from shared.redis_records import history_of, read_finished, understood
from shared.scripts import Scripts
from shared.suspects import script_args
from shared.versions import LOOK_AGAIN_S, MOST_LEFT, VERSION

_MOST_BYTES = 8 * 1024 * 1024
_FIELDS = (
    *("spec", "status", "created", "expires", "started", "ended", "line"),
    *("reason", "waits_for", "parked_since", "until", "history", "v"),
)
_HINTING = {"hint_timeout_s": ledger.HINT_TIMEOUT_S, "overdue_s": lone.OVERDUE_S}

_spec = msgspec.json.Decoder(LoneSpec)


class RedisLone:
    """`client` must not repeat commands by itself."""

    def __init__(self, client: redis.Redis, prefix: str = "le", newer: NewerSeen | None = None) -> None:
        self._redis = client
        self._newer = newer or NewerSeen()
        self._keys = Keys(prefix)
        self._run: Callable[..., Any] = Scripts(client, prefix).run

    # the API

    def submit(self, jobs: Sequence[NewJob]) -> Submitted:
        known, hint, at, others = self._run(
            "lone_submit",
            blob=b"".join(job.body for job in jobs),
            jobs=[_row(job) for job in jobs],
            v=VERSION,
            same_s=lone.SAME_S,
            **_HINTING,
        )
        return Submitted(
            tuple(flag == ord("1") for flag in known),
            bool(hint),
            float(at),
            {index: made.decode() for index, made in zip(others[::2], others[1::2], strict=True)},
        )

    def get(self, job_id: str) -> LoneJob | None:
        row = self._rows([job_id])[0]
        return None if row is None else _job(row)

    def _rows(self, ids: Sequence[str]) -> list[Sequence[Any] | None]:
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(self._keys.job(job_id), list(_FIELDS))
        with store_errors():
            rows = pipe.execute()
        return [row if row[0] is not None else None for row in rows]

    def page(self, owner: str, *, after: str | None, limit: int) -> tuple[list[LoneJob], bool]:
        found: list[LoneJob] = []
        upper = f"({after}" if after else "+"
        while len(found) <= limit:
            with store_errors():
                ids: Any = self._redis.zrevrangebylex(
                    self._keys.jobs(owner), upper, "-", start=0, num=limit + 1
                )
            if not ids:
                break
            names = [name.decode() for name in ids]
            for row in self._rows(names):
                if row is not None:
                    with suppress(NewerRecordError):  # what cannot be shown must not hide the others
                        found.append(_job(row))
            upper = f"({names[-1]}"
        return found[:limit], len(found) > limit

    def cancel(self, job_id: str) -> LoneJob | None:
        return self.get(job_id) if self._run("lone_cancel", id=job_id) else None

    def delete(self, job_id: str) -> None:
        self._run("lone_delete", id=job_id)

    def wait(self, job_id: str, caller: str) -> LoneJob | None:
        return self.get(job_id) if self._run("lone_wait", id=job_id, caller=caller) else None

    def leave(self, job_id: str, caller: str, *, cancel: bool) -> None:
        self._run("lone_leave", id=job_id, caller=caller, cancel=cancel, same_s=lone.SAME_S)

    def attach(self, owner: str, fingerprint: str, caller: str) -> str | None:
        found = self._run("lone_attach", owner=owner, fingerprint=fingerprint, caller=caller)
        return found.decode() if found else None

    def ended(self, job_ids: Sequence[str]) -> list[str]:
        open_ = {b"queued", b"in_progress"}
        return [job_id for job_id, state in self._states(job_ids) if state not in open_]

    def unbegun(self, job_ids: Sequence[str]) -> list[str]:
        return [job_id for job_id, state in self._states(job_ids) if state == b"queued"]

    def _states(self, job_ids: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        pipe = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.hget(self._keys.job(job_id), "status")
        with store_errors():
            states = pipe.execute()
        return zip(job_ids, states, strict=True)

    # the fleet

    def claim(
        self, *, waited: int, rest: int, holder: str, lease_s: float, reads: int = VERSION
    ) -> Claim | None:
        row = self._run(
            "lone_claim",
            waited=waited,
            rest=rest,
            most=lone.MOST,
            holder=holder,
            lease_s=lease_s,
            tolerance_s=EARLY_S,
            most_bytes=_MOST_BYTES,
            reads=reads,
            look_again_s=LOOK_AGAIN_S,
            most_left=MOST_LEFT,
            **_HINTING,
        )
        if not row:
            return None
        if isinstance(row, int):
            self._newer.note(row)
            raise NewerRecordError(row, reads)
        self._newer.note(row[3])
        token = int(row[0])
        return Claim(
            ref=f"{lone.LONE}/{token}",
            batch_id=lone.LONE,
            token=token,
            claimed_at=float(row[1]),
            slips=tuple(_slip(n, row[i : i + 7]) for n, i in enumerate(range(4, len(row), 7))),
            more=bool(row[2]),
        )

    def decline(self) -> None:
        with store_errors():
            self._redis.delete(self._keys.hinted)

    def wants_hint(self) -> bool:
        return bool(self._run("lone_hint", **_HINTING))

    def begin(self, job_id: str) -> bool:
        return bool(self._run("lone_begin", id=job_id))

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]:
        if not held:
            return []
        states = self._run("lone_renew", tokens=[token for _, token in held], lease_s=lease_s)
        return ["held" if state == ord("h") else "lost" for state in states]

    def release(self, ref: str, token: int) -> bool:  # noqa: ARG002  the token alone names the claim
        return bool(self._run("lone_release", token=token))

    def split(self, ref: str, token: int, split: Split) -> str | None:  # noqa: ARG002  see above
        moved = self._run("lone_split", token=token, most_tries=TRIES, **msgspec.structs.asdict(split))
        return lone.LONE if moved else None

    def finish(self, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        raw = self._run(
            "lone_finish",
            writer=writer,
            serial=serial,
            outcomes=[(o.id, o.ok, o.line.decode("utf-8", "replace")) for o in outcomes],
            served=served(outcomes),
            writer_ttl_s=WRITER_TTL_S,
            overdue_s=lone.OVERDUE_S,
        )
        return read_finished(raw)

    def reap(self, *, most: int) -> LoneReaped:
        recovered, expired, removed, left, suspects = self._run(
            "lone_reap", most=most, silence_s=SILENCE_S, forbear_s=FORBEAR_S, **script_args()
        )
        return LoneReaped(
            recovered=recovered,
            expired=expired,
            removed=removed,
            left=bool(left),
            suspects=tuple(
                Suspect(suspects[i].decode(), *suspects[i + 1 : i + 3]) for i in range(0, len(suspects), 3)
            ),
        )


def _row(job: NewJob) -> tuple[object, ...]:
    return msgspec.json.encode(job.spec).decode(), job.caller, len(job.body), job.once or False


def _slip(index: int, row: Sequence[Any]) -> Slip:
    job_id, owner, endpoint, body, history, waited, expires = row
    return Slip(
        index=index,
        offset=0,
        length=len(body),
        history=history_of(history),
        id=job_id.decode(),
        owner=owner.decode(),
        endpoint=endpoint.decode(),
        body=body,
        waited=bool(waited),
        expires_at=float(expires),
    )


def _job(row: Sequence[Any]) -> LoneJob:
    """Raises NewerRecordError."""
    *fields, v = row
    with understood(v):
        return _understood_job(fields)


def _understood_job(row: Sequence[Any]) -> LoneJob:
    spec, status, created, expires, started, ended, line, reason, waits_for, since, until, history = row
    return LoneJob(
        spec=_spec.decode(spec),
        status=lone.JobStatus(status.decode()),
        created_at=float(created),
        expires_at=float(expires),
        started_at=float(started) if started else None,
        ended_at=float(ended) if ended else None,
        line=line or b"",
        waiting=Waiting(
            reason=reason.decode(),
            provider=waits_for.decode(),
            since=float(since),
            until=float(until),
            jobs=1,
        )
        if reason
        else None,
        history=history_of(history),
    )
