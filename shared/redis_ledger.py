"""The ledger on Redis or Valkey: every change is one Lua script, and Redis' own TIME is the only clock."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import redis

from shared import ledger as contract
from shared.errors import KeyReusedError, NewerRecordError
from shared.forbearance import FORBEAR_S, SILENCE_S
from shared.idempotency import Once, gone
from shared.jobs import (
    SEGMENT,
    TRIES,
    Batch,
    BatchSpec,
    Chore,
    Claim,
    Fault,
    Finished,
    JobState,
    Outcome,
    Progress,
    Reaped,
    Segment,
    Split,
    WorkerRecord,
    served,
)
from shared.keys import Keys
from shared.ledger import Held
from shared.newer import NewerSeen
from shared.redis_client import store_errors
from shared.redis_records import (
    batch_of,
    history_of,
    places_of,
    progress_of,
    read_finished,
    slip_of,
    spec_of,
    suspects_of,
    text_of,
)
from shared.scripts import Scripts
from shared.suspects import script_args
from shared.versions import LOOK_AGAIN_S, VERSION

WRITER_TTL_S = 86_400
EARLY_S = 0.005  # a Celery timer may fire this much before the due time
_HELD: dict[str, Held] = {"h": "held", "c": "closing", "l": "lost"}

_worker = msgspec.json.Decoder(WorkerRecord)


class RedisLedger:
    """The contract: `shared.ledger.Ledger`. `client` must not repeat commands by itself."""

    def __init__(self, client: redis.Redis, prefix: str = "le", newer: NewerSeen | None = None) -> None:
        self._redis = client
        self._newer = newer or NewerSeen()
        self._keys = Keys(prefix)
        self._run = Scripts(client, prefix).run

    # batches

    def create(self, spec: BatchSpec, once: Once | None = None) -> Batch:
        made = self._run(
            "create",
            id=spec.id,
            owner=spec.owner,
            spec=msgspec.json.encode(spec).decode(),
            v=VERSION,
            window_s=spec.window_s,
            lines=spec.lines,
            once=once or False,
        )
        if not made:
            raise KeyReusedError
        return self.get(made.decode()) or gone(made.decode())

    def get(self, batch_id: str) -> Batch | None:
        row = self._rows([batch_id])[0]
        return None if row is None else batch_of(*row)

    def page(self, owner: str, *, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        found: list[Batch] = []
        upper = f"({after}" if after else "+"
        while len(found) <= limit:
            with store_errors():
                ids = self._redis.zrevrangebylex(
                    self._keys.batches(owner), upper, "-", start=0, num=limit + 1
                )
            if not ids:
                break
            names = [text_of(i) for i in ids]
            gone = []
            for name, row in zip(names, self._rows(names), strict=True):
                if row is None:
                    gone.append(name)
                else:
                    with suppress(NewerRecordError):  # what cannot be shown must not hide the others
                        found.append(batch_of(*row))
            if gone:  # past its retention
                with store_errors():
                    self._redis.zrem(self._keys.batches(owner), *gone)
            upper = f"({names[-1]}"
        return found[:limit], len(found) > limit

    def _rows(self, ids: Sequence[str]) -> list[tuple[dict[bytes, bytes], dict[bytes, bytes]] | None]:
        """Of each batch its hash and its tallies."""
        pipe = self._redis.pipeline(transaction=False)
        for batch_id in ids:
            pipe.hgetall(self._keys.batch(batch_id))
            pipe.hgetall(self._keys.tallies(batch_id))
        with store_errors():
            rows = pipe.execute()
        pairs = zip(rows[::2], rows[1::2], strict=True)
        return [pair if b"spec" in pair[0] else None for pair in pairs]

    def cancel(self, batch_id: str, overspent: Fault | None = None) -> Batch | None:
        errors = overspent is not None and msgspec.json.encode((overspent,)).decode()
        self._run("cancel", id=batch_id, grace_s=contract.CLOSING_GRACE_S, errors=errors)
        return self.get(batch_id)

    # chores

    def take_chore(self, lease_s: float, *, reads: int = VERSION) -> Chore | None:
        row = self._run("take_chore", lease_s=lease_s, reads=reads, look_again_s=LOOK_AGAIN_S)
        if not row:
            return None
        return Chore(batch_id=row[0].decode(), kind=row[1].decode(), token=int(row[2]))

    def keep_chore(self, chore: Chore, lease_s: float) -> bool:
        return bool(self._run("keep_chore", id=chore.batch_id, token=chore.token, lease_s=lease_s))

    def start(self, chore: Chore, *, index: bytes, model: str | None) -> bool:
        return bool(
            self._run("start", id=chore.batch_id, token=chore.token, blob=index, model=model or False)
        )

    def reject(self, chore: Chore, faults: Sequence[Fault]) -> bool:
        return bool(
            self._run(
                "reject",
                id=chore.batch_id,
                token=chore.token,
                errors=msgspec.json.encode(faults).decode(),
            )
        )

    def seal(self, chore: Chore, segment: int) -> bool:
        first = segment * SEGMENT
        return bool(
            self._run("seal", id=chore.batch_id, token=chore.token, first=first, last=first + SEGMENT - 1)
        )

    def end(self, chore: Chore) -> Batch | None:
        ended = self._run("end", id=chore.batch_id, token=chore.token, segment=SEGMENT)
        return self.get(chore.batch_id) if ended else None

    # results

    def segment(self, batch_id: str, number: int) -> Segment:
        first = number * SEGMENT
        last = first + SEGMENT - 1
        states, rows, index, rolled = self._run(
            "segment", id=batch_id, segment=number, first=first, last=last
        )
        return Segment(
            first=first,
            states=states.decode(),
            results={int(job): line for job, line in zip(rows[::2], rows[1::2], strict=True)},
            slices=places_of(index),
            rolled_up=bool(rolled),
        )

    def roll_up(
        self, batch_id: str, number: int, *, output: tuple[int, int], errors: tuple[int, int]
    ) -> bool:
        first = number * SEGMENT
        return bool(
            self._run(
                "roll_up",
                id=batch_id,
                segment=number,
                first=first,
                last=first + SEGMENT - 1,
                output=output,
                errors=errors,
            )
        )

    # the fleet

    def beat(self, worker: WorkerRecord) -> None:
        self._run(
            "beat",
            id=worker.id,
            record=msgspec.json.encode(worker).decode(),
            capacity=worker.capacity,
            reads=worker.reads,
            timeout_s=contract.HEARTBEAT_TIMEOUT_S,
        )

    def retire(self, worker_id: str) -> None:
        self._run("beat", id=worker_id, record=False, capacity=0, timeout_s=contract.HEARTBEAT_TIMEOUT_S)

    def workers(self) -> list[WorkerRecord]:
        with store_errors():
            seconds, micros = self._redis.time()
            since = seconds + micros / 1e6 - contract.HEARTBEAT_TIMEOUT_S
            alive: Any = self._redis.zrangebyscore(self._keys.alive, since, "+inf", withscores=True)
            rows = self._redis.hmget(self._keys.workers, [text_of(i) for i, _ in alive]) if alive else []
        return [
            msgspec.structs.replace(_worker.decode(text_of(row).split(" ", 1)[1]), heard_at=heard_at)
            for (_, heard_at), row in zip(alive, rows, strict=True)
            if row
        ]

    def feed(self, *, shard_size: int, most: int) -> list[str]:
        newest, refs = self._run(
            "feed",
            shard_size=shard_size,
            least=min(contract.LEAST_SHARD, shard_size),
            most=most,
            hint_timeout_s=contract.HINT_TIMEOUT_S,
            look_again_s=LOOK_AGAIN_S,
        )
        self._newer.note(newest)
        return [ref.decode() for ref in refs]

    def claim(self, ref: str, *, holder: str, lease_s: float, reads: int = VERSION) -> Claim | None:
        row = self._run(
            "claim",
            ref=ref,
            holder=holder,
            lease_s=lease_s,
            tolerance_s=EARLY_S,
            reads=reads,
            look_again_s=LOOK_AGAIN_S,
        )
        if not row:
            return None
        if isinstance(row, int):
            self._newer.note(row)
            raise NewerRecordError(row, reads)
        spec = spec_of(row[2])
        slips = [slip_of(row[i], row[i + 1], row[i + 2]) for i in range(4, len(row), 3)]
        return Claim(
            ref=ref,
            batch_id=spec.id,
            token=int(row[0]),
            owner=spec.owner,
            endpoint=spec.endpoint,
            input_file_id=spec.input_file_id,
            claimed_at=float(row[1]),
            expires_at=float(row[3]),
            slips=tuple(slips),
            routing=spec.routing,
            max_cost_nanos=spec.max_cost_nanos,
        )

    def decline(self, ref: str) -> None:
        self._run("decline", ref=ref)

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]:
        if not held:
            return []
        return [_HELD[c] for c in self._run("renew", held=list(held), lease_s=lease_s).decode()]

    def release(self, ref: str, token: int) -> bool:
        return bool(self._run("release", ref=ref, token=token))

    def split(self, ref: str, token: int, split: Split) -> str | None:
        new = self._run(
            "split",
            ref=ref,
            token=token,
            overdue_s=contract.OVERDUE_S,
            most_tries=TRIES,
            **msgspec.structs.asdict(split),
        )
        return new.decode() if new else None

    def finish(self, batch_id: str, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        rows = [
            (
                o.index,
                o.ok,
                o.line.decode("utf-8", "replace"),
                o.provider,
                o.usage.input_tokens,
                o.usage.cached_tokens,
                o.usage.output_tokens,
                o.usage.reasoning_tokens,
                False if o.cost_nanos is None else o.cost_nanos,
                o.ref,
                o.token,
            )
            for o in outcomes
        ]
        raw = self._run(
            "finish",
            id=batch_id,
            writer=writer,
            serial=serial,
            outcomes=rows,
            served=served(outcomes),
            segment=SEGMENT,
            writer_ttl_s=WRITER_TTL_S,
        )
        return read_finished(raw)

    def progress(self, batch_id: str) -> Progress:
        return progress_of(
            self._run("progress", id=batch_id, heartbeat_timeout_s=contract.HEARTBEAT_TIMEOUT_S)
        )

    def job(self, batch_id: str, index: int) -> JobState | None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.getrange(self._keys.states(batch_id), index, index)
        pipe.hget(self._keys.histories(batch_id), str(index))
        with store_errors():
            state, history = pipe.execute()
        return JobState(state=text_of(state), history=history_of(history)) if state else None

    def answered_since(self, providers: Sequence[str], since: float) -> bool:
        return bool(self._run("answered_since", providers=list(providers), since=since))

    def lead(self, holder: str, for_s: float) -> bool:
        return bool(self._run("lead", holder=holder, for_ms=int(for_s * 1000)))

    def reap(self, *, most: int) -> Reaped:
        *counts, suspects = self._run(
            "reap",
            most=most,
            silence_s=SILENCE_S,
            forbear_s=FORBEAR_S,
            heartbeat_timeout_s=contract.HEARTBEAT_TIMEOUT_S,
            grace_s=contract.CLOSING_GRACE_S,
            **script_args(),
        )
        return Reaped(
            recovered=counts[0],
            rehinted=counts[1],
            woken=counts[2],
            expired=counts[3],
            workers_lost=counts[4],
            suspects=suspects_of(suspects),
        )

    def ping(self) -> None:
        with store_errors():
            self._redis.delete(self._keys.probe)  # a write that a full server takes too
