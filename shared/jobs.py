"""The records that the ledger keeps and hands out: batches, shards, claims, outcomes. Plain data, no behaviour beyond arithmetic."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from shared.routing_asked import RoutingAsked
from shared.versions import VERSION

SEGMENT = 128
"""Jobs whose results are kept together: one compressed chunk of the output file each."""

PENDING, DONE, FAILED, EXPIRED, CANCELLED, UNPAID = "p", "d", "f", "x", "c", "m"
"""The one byte that says how a job stands. Only `p` ever changes, and only once."""


class BatchStatus(StrEnum):
    """OpenAI's eight states of a batch."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked for: fixed at creation. The file ids of the answers are reserved here, shown when they exist.

    `lines` is how many jobs the input has at most; until it is validated, room is promised for so many answers.
    `routing` is for all its jobs that do not say otherwise. `max_cost_nanos`, in nano-dollars, is what it may cost at most.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    input_chunks: int
    completion_window: str
    window_s: float
    retention_s: float
    output_file_id: str
    error_file_id: str
    lines: int = 0
    metadata: dict[str, str] | None = None
    routing: RoutingAsked | None = None
    max_cost_nanos: int | None = None
    output_expires_after_s: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens: cached ones are part of the input, reasoning ones part of the output."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider did for one batch. `unpriced` counts answers whose price is not known."""

    completed: int = 0
    failed: int = 0
    usage: Usage = Usage()
    cost_nanos: int = 0
    unpriced: int = 0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with an input file, as `errors.data[]` of a failed batch shows it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """When a batch came to each state, in whole Unix seconds."""

    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it stands. Once it is terminal, `completed` and `failed` are the lines of its two files, and add up to `total`.

    `v`: the version of its records (`shared.versions`).
    """

    spec: BatchSpec
    v: int = VERSION
    status: BatchStatus
    at: Moments
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_lines: int = 0
    error_lines: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    model: str | None = None
    errors: tuple[Fault, ...] = ()
    tallies: dict[str, Tally] = msgspec.field(default_factory=dict)

    @property
    def usage(self) -> Usage:
        parts = [tally.usage for tally in self.tallies.values()]
        return Usage(
            input_tokens=sum(u.input_tokens for u in parts),
            cached_tokens=sum(u.cached_tokens for u in parts),
            output_tokens=sum(u.output_tokens for u in parts),
            reasoning_tokens=sum(u.reasoning_tokens for u in parts),
        )


def as_created(batch: Batch) -> Batch:
    """The batch as its creation is answered, whatever has become of it since."""
    at = Moments(created_at=batch.at.created_at, expires_at=batch.at.expires_at)
    return Batch(spec=batch.spec, v=batch.v, status=BatchStatus.VALIDATING, at=at)


_FAULTY = 500

TRIES = 20
"""So many calls of a job are remembered, the latest ones."""


class Try(msgspec.Struct, frozen=True, array_like=True):
    """One call that brought no answer. `status` is the provider's, 0 where it gave none; `at` in Unix seconds."""

    provider: str
    status: int
    code: str
    duration_s: float
    charged: bool
    at: float

    @property
    def fault(self) -> bool:
        """Whether it speaks against the provider: no answer, or a 5xx."""
        return self.status == 0 or self.status >= _FAULTY


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger remembers of a job that has failed before: charged attempts, since when, at which providers, and how often parked.

    `faults` are the calls that spoke against their provider, charged or not. Both counts begin anew after an outage.
    `recoveries`: how often its worker died while it had the job; `alone`: those that speak against it (shared/suspects.py).
    `deaths`: how many workers that had no suspect had died in the fleet by the last of them.
    """

    attempts: int = 0
    faults: int = 0
    since: float = 0.0
    tried: tuple[str, ...] = ()
    parked: int = 0
    tries: tuple[Try, ...] = ()
    recoveries: int = 0
    alone: int = 0
    deaths: int = 0


class Suspect(msgspec.Struct, frozen=True):
    """A job that the death of its worker has made, or kept, a suspect: its id, and what its history says now."""

    job: str
    recoveries: int
    alone: int


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch's job stands (PENDING ...), and what the ledger remembers of it."""

    state: str
    history: History


class Slip(msgspec.Struct, frozen=True, kw_only=True):
    """One job as a claim hands it out: where its line lies in the input file, and its history.

    A lone job brings what a batch's has in its file: its id, owner, endpoint and body, and when its window ends. `waited`:
    somebody waits for it.
    """

    index: int
    offset: int
    length: int
    history: History = History()
    id: str = ""
    owner: str = ""
    endpoint: str = ""
    body: bytes = b""
    waited: bool = False
    expires_at: float = 0.0


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A shard held by one worker until its lease ends. `token` fences renew, retry, park and release.

    `expires_at`: when the batch's window ends; of lone jobs each slip has its own. 0 where it does not say.
    Of lone jobs (`shared.lone`), `more` says that others wait, and that the caller must send another hint.
    """

    ref: str
    batch_id: str
    token: int
    owner: str = ""
    endpoint: str = ""
    input_file_id: str = ""
    claimed_at: float
    expires_at: float = 0.0
    slips: tuple[Slip, ...]
    more: bool = False
    routing: RoutingAsked | None = None
    max_cost_nanos: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended: its line of the output file (`ok`) or of the error file, what it used, and the claim it ran under.

    `id` names a lone job; of a batch `index` does. `began_at`: when the call that was answered began, in the store's time.
    """

    index: int
    id: str = ""
    ok: bool
    line: bytes
    provider: str = ""
    usage: Usage = Usage()
    cost_nanos: int | None = None
    ref: str = ""
    token: int = 0
    began_at: float = 0.0


def served(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """By provider, when the latest of these calls began that it answered."""
    latest: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.ok and outcome.provider:
            latest[outcome.provider] = max(outcome.began_at, latest.get(outcome.provider, 0.0))
    return latest


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's answer to `finish`.

    `accepted`: which outcomes were their job's first. `segments`: those that are whole now. `open`: the batch still
    runs. `hungry`: the fleet has room for more shards, and some are waiting.
    """

    accepted: tuple[bool, ...]
    segments: tuple[int, ...] = ()
    open: bool = True
    hungry: bool = False


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that leave their shard to wait for a due time.

    `retry`: a failed attempt is charged and Celery carries the hint. `park`: nothing is charged unless `charged`; the
    reaper sends the hint when they are due. `anew` forgets the attempts so far (an outage used them up).

    What is parked says why: `reason` (shared/gate.py), and `wait_for`: the providers of which each brings the jobs back
    earlier by serving again. `serves_s`: until the first of them may serve again by itself, where they are asked before that.
    `blocked`: no call was made. `tries`: for each job the calls that were, since it was claimed at `claimed_at` (the store's time).
    A provider that has begun to serve again since `asked_at`, when the worker was told to wait, brings them back in `soon_s`.
    """

    kind: Literal["retry", "park"]
    jobs: tuple[int, ...] | tuple[str, ...]
    delay_s: float
    provider: str = ""
    charged: bool = True
    anew: bool = False
    reason: str = ""
    wait_for: tuple[str, ...] = ()
    serves_s: float = 0.0
    blocked: bool = False
    tries: tuple[tuple[Try, ...], ...] = ()
    claimed_at: float = 0.0
    asked_at: float = 0.0
    soon_s: float = 0.0

    @property
    def lasts_s(self) -> float:
        """For how long nothing can be called, as far as is known."""
        return max(self.delay_s, self.serves_s)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that wait for the same reason (shared/reasons.py) at the same provider: since when the longest, and until when at least.

    They may be asked about before `until`; that the first of them can be called before, nobody expects. Unix seconds.
    """

    reason: str
    provider: str
    since: float
    until: float
    jobs: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch's open jobs are: `queued` to be handed out, `running`, `retrying` after a failure, and what waits for a reason."""

    queued: int = 0
    running: int = 0
    retrying: int = 0
    retry_at: float = 0.0
    waiting: tuple[Waiting, ...] = ()

    @property
    def next_due(self) -> float:
        """The next time at which something comes due; 0 where nothing will."""
        times = [self.retry_at] if self.retrying else []
        return min([*times, *(w.until for w in self.waiting)], default=0.0)


class Chore(msgspec.Struct, frozen=True, kw_only=True):
    """Leased work on a whole batch, done by whichever process takes it."""

    batch_id: str
    kind: Literal["validate", "finalize"]
    token: int


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The states and results of up to SEGMENT consecutive jobs, from job `first` on. `slices` are (offset, length) in the input file."""

    first: int
    states: str
    results: dict[int, bytes]
    slices: tuple[tuple[int, int], ...]
    rolled_up: bool


class FileState(msgspec.Struct, frozen=True, kw_only=True):
    """A process' providers file: the version in force, since when (Unix seconds), and what is wrong with the one that lies there now."""

    version: str = ""
    loaded_at: float = 0.0
    fault: str | None = None


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's heartbeat: `capacity` is how many batch jobs may be handed to it at once, `in_flight` its calls by provider.

    `loop_lag_s` is how late it ran what was due, at worst since the heartbeat before. `reads`: the newest records that it can run.

    `heard_at` is the ledger's to set: when the heartbeat came in, by the store's time.
    """

    id: str
    pool: str
    concurrency: int
    capacity: int
    version: str
    started_at: float
    in_flight: dict[str, int] = {}
    providers_file: FileState = FileState()
    loop_lag_s: float = 0.0
    reads: int = 1
    heard_at: float = 0.0


class ApiRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An API process' heartbeat."""

    id: str
    providers_file: FileState = FileState()


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of the reaper put right."""

    recovered: int = 0
    rehinted: int = 0
    woken: int = 0
    expired: int = 0
    workers_lost: int = 0
    suspects: tuple[Suspect, ...] = ()

    @property
    def any(self) -> bool:
        return bool(self.recovered or self.rehinted or self.woken or self.expired or self.workers_lost)
