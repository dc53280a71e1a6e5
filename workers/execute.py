"""The story of one attempt at one job: read its line, rank the providers, call, and say what came of it."""

import secrets
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from shared.catalogue import Catalogue, Provider
from shared.errors import (
    ModelRefusedError,
    NotFoundError,
    NotServedError,
    ProviderBusyError,
    ProviderError,
    RateLimitedError,
    RequestRefusedError,
    WorkerKilledError,
)
from shared.gate import Block, Candidate
from shared.ids import job_id
from shared.jobs import Claim, Fault, Outcome, Slip, Try
from shared.lines import (
    Request,
    Routing,
    custom_id_of,
    failure_line,
    read_body,
    read_request,
    shown,
    success_line,
    with_model,
)
from shared.money import format_usd, to_nanos
from shared.permits import Permit
from shared.prices import cost_of
from shared.reasons import Reason
from shared.routing_asked import RoutingAsked
from shared.spending import batch_purse, budget_of, overspent, purses_of
from workers.options import Fleet, Option, options_of, turn_of, without
from workers.retry import waits_briefly
from workers.strategies.records import RoutedJob
from workers.transport import Answer
from workers.usage import counted


class Job(msgspec.Struct, frozen=True):
    """One job of a claimed shard, with its line of the input file; a lone one with its body.

    `expires_at`: when its window ends, by the store's time; 0 where nobody says.
    """

    batch_id: str
    endpoint: str
    slip: Slip
    line: bytes
    ref: str
    token: int
    routing: RoutingAsked | None = None
    owner: str = ""
    max_cost_nanos: int | None = None
    expires_at: float = 0.0

    @property
    def id(self) -> str:
        return self.slip.id or job_id(self.batch_id, self.slip.index)

    def read(self) -> Request:
        return read_body(self.line) if self.slip.id else read_request(self.line)

    def told_apart(self, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        """With the batch's `max_cost` by its own name where that is spent, and not what its owner may spend."""
        if self.max_cost_nanos is None:
            return blocks
        scope = batch_purse(self.batch_id, self.max_cost_nanos).scope
        own = (b.reason is Reason.BUDGET_SPENT and b.detail == scope for b in blocks)
        return tuple(
            msgspec.structs.replace(block, reason=Reason.MAX_COST) if is_own else block
            for block, is_own in zip(blocks, own, strict=True)
        )

    def overspent(self, blocks: Sequence[Block]) -> Fault | None:
        """What its batch says where nothing but its `max_cost` keeps it from being called, and no call is under way that could leave some.

        Providers that were taken away do not count: the batch would wait for them until its window ends.
        """
        reasons = {block.reason for block in blocks}
        if self.max_cost_nanos is None or Reason.MAX_COST not in reasons:
            return None
        return overspent(self.max_cost_nanos) if reasons <= {Reason.MAX_COST, Reason.DISABLED} else None


class Upstream(Fleet, Protocol):
    """What an attempt needs of `workers.upstreams`."""

    def acquire(self, candidates: Sequence[Candidate]) -> Permit | tuple[Block, ...]: ...

    def release(self, permit: Permit) -> None: ...

    def call(self, permit: Permit, provider: Provider, model: str, endpoint: str, body: bytes) -> Answer: ...


class Failed(msgspec.Struct, frozen=True):
    """An attempt that brought no answer; what becomes of the job is decided elsewhere."""

    job: Job
    request: Request
    provider: str
    error: ProviderError
    tries: tuple[Try, ...] = ()


class Blocked(msgspec.Struct, frozen=True):
    """No provider may be called for this job now. `tries`: those that were, and turned out to be out of service."""

    job: Job
    request: Request
    blocks: tuple[Block, ...]
    tries: tuple[Try, ...] = ()


def attempt(job: Job, catalogue: Catalogue, upstream: Upstream) -> Outcome | Failed | Blocked:
    """Ask the best provider that may be called; where it cannot serve this job at all (key, model, rate), the next one at once."""
    request, slip = job.read(), job.slip
    now = upstream.now()
    purses = purses_of(job.batch_id, job.max_cost_nanos, job.owner, catalogue.owners, now)
    about = RoutedJob(
        request.model,
        turn=turn_of(slip.id or job.batch_id, slip.index, slip.history),
        tried=slip.history.tried,
        left_s=job.expires_at - now if job.expires_at else None,
        budget=budget_of(purses),
    )
    options = options_of(
        request,
        job.routing,
        about,
        endpoint=job.endpoint,
        catalogue=catalogue,
        fleet=upstream,
        purses=purses,
    )
    if not options:
        reason = Reason.COST_NOT_BOUNDED if purses and catalogue.serves(request.model) else Reason.NO_PROVIDER
        return Blocked(job, request, (Block("", reason, 0.0, request.model[:100]),))
    tries: list[Try] = []
    blocks: tuple[Block, ...] = ()
    left, failed = options, None
    while left:
        found = upstream.acquire([option.candidate for option in left])
        if not isinstance(found, Permit):
            blocks = job.told_apart(found)
            break
        option = left[found.choice]
        provider, started, began_at = option.provider, time.monotonic(), upstream.now()
        try:
            answer = upstream.call(found, provider, option.model, job.endpoint, _sent(request, option))
        except ProviderError as exc:
            tries.append(_try(provider, exc, time.monotonic() - started))
            failed = Failed(job, request, provider.id, exc, tuple(tries))
            if not (exc.elsewhere and (not exc.retryable or isinstance(exc, RateLimitedError))):
                return failed
            model_only = isinstance(exc, ModelRefusedError | NotServedError)
            left = without(left, option, model_only=model_only)
            if isinstance(exc, NotServedError) or (model_only and not option.candidate.model):
                # nothing is held against it: a path that is not there, or a name that was merely passed on
                options = without(options, option, model_only=True)
        else:
            return _answered(job, request, option, answer, tries, began_at)
    if failed is not None and (not options or waits_briefly(failed.error, slip.history, catalogue.retry)):
        return failed
    if tries:
        blocks = job.told_apart(_blocks(options, upstream))
    return Blocked(job, request, blocks, tuple(tries))


def _sent(request: Request, option: Option) -> bytes:
    """The body, asking for another model where the request's own cannot be served."""
    return request.body if option.model == request.model else with_model(request.body, option.model)


def _blocks(options: Sequence[Option], upstream: Upstream) -> tuple[Block, ...]:
    """Why none of them may be called now."""
    found = upstream.acquire([option.candidate for option in options])
    if not isinstance(found, Permit):
        return found
    upstream.release(found)  # it may, this very moment: soon, then
    return (Block(found.candidate.provider, Reason.BREAKER_PROBING, 0.0),)


def _try(provider: Provider, exc: ProviderError, duration_s: float) -> Try:
    return Try(
        provider.id, exc.http_status or 0, exc.code or "", round(duration_s, 4), exc.charged, time.time()
    )


def _answered(
    job: Job, request: Request, option: Option, answer: Answer, tries: Sequence[Try], began_at: float
) -> Outcome:
    provider, usage = option.provider, counted(answer.usage)
    cost = cost_of(provider, option.model, usage) if answer.usage.known else None
    routing = Routing(
        provider=provider.id,
        attempts=job.slip.history.attempts + 1,
        duration_s=round(answer.duration_s, 4),
        cost_usd=None if cost is None else format_usd(cost),
        tries=shown((*job.slip.history.tries, *tries)),
    )
    line = success_line(
        line_id=job.id,
        custom_id=request.custom_id,
        request_id=answer.request_id or _request_id(),
        body=answer.body,
        routing=routing,
    )
    return Outcome(
        index=job.slip.index,
        id=job.slip.id,
        ok=True,
        line=line,
        provider=provider.id,
        usage=usage,
        cost_nanos=None if cost is None else to_nanos(cost),
        ref=job.ref,
        token=job.token,
        began_at=began_at,
    )


def given_up(failed: Failed) -> Outcome:
    """The outcome of a job that fails for good: its line of the error file."""
    job = failed.job
    line = failure_line(
        line_id=job.id,
        custom_id=failed.request.custom_id,
        request_id=failed.error.request_id or _request_id(),
        error=failed.error,
        routing=Routing(
            provider=failed.provider or None,
            attempts=job.slip.history.attempts + 1,
            duration_s=0.0,
            tries=shown((*job.slip.history.tries, *failed.tries)),
        ),
    )
    return Outcome(
        index=job.slip.index,
        id=job.slip.id,
        ok=False,
        line=line,
        provider=failed.provider,
        cost_nanos=0,
        ref=job.ref,
        token=job.token,
    )


def broken(job: Job, exc: Exception) -> Failed:
    """An attempt that our own code could not make: retried like any other, and given up with a line that says so."""
    error = ProviderBusyError(
        f"The attempt broke inside the worker ({type(exc).__name__}); its log has the details.",
        code="internal_error",
    )
    return Failed(job, _unread(job), "", error)


def killer(job: Job) -> Outcome:
    """The outcome of a job that is to blame for the deaths of its workers: it is not called any more."""
    history = job.slip.history
    error = WorkerKilledError(
        f"Its worker died {history.recoveries} times while it ran this job, the last {history.alone} times with no other suspect"
        " there. Look at the workers' logs and memory; if it was something else that killed them, submit the job again."
    )
    return given_up(Failed(job, _unread(job), "", error))


def _unread(job: Job) -> Request:
    return Request(None if job.slip.id else _custom_id(job.line), "", b"")


def kept_back(job: Job, *, now: float) -> Blocked:
    """A job that is not called: the store takes no answers at present."""
    return Blocked(job, Request("", "", b""), (Block("", Reason.STORE_AWAY, now + 1.0),))


def input_gone(claim: Claim, slip: Slip, exc: NotFoundError) -> Outcome:
    """The outcome of a job whose line can no longer be read."""
    job = Job(claim.batch_id, claim.endpoint, slip, b"", claim.ref, claim.token)
    return given_up(
        Failed(job, Request("", "", b""), "", RequestRefusedError(exc.message, code="input_file_gone"))
    )


def _custom_id(line: bytes) -> str:
    try:
        return custom_id_of(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _request_id() -> str:
    return f"req_{secrets.token_hex(12)}"
