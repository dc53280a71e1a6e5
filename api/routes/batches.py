"""OpenAI's Batch API: create, retrieve, list, cancel."""

import json
import time

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from api import idempotency
from api.caller import CallerOf
from api.explain_schema import Explanation, LineObject, Stopped, waiting_of
from api.parts import FromApp, Parts
from api.query import limit_of, whole
from api.routes.files import find as find_file
from api.schema import ERRORS, BatchCreate, BatchList, BatchObject, parse, window_s
from shared.errors import ConflictError, NotFoundError, RequestError, StoreUnavailableError, TooLargeError
from shared.idempotency import Once, gone
from shared.ids import is_id, new_batch_id, new_file_id
from shared.jobs import Batch, BatchSpec, BatchStatus, Progress, WorkerRecord, as_created
from shared.keys import Keys
from shared.reasons import Reason
from shared.routing_asked import wrong
from shared.spending import nanos_up

MAX_PAGE = 100
DEFAULT_PAGE = 20
_MAX_BODY_BYTES = 256 * 1024
_PIN_BEYOND_S = 86_400.0  # calls in flight at a batch's end, and its finalizing, still need the input

router = APIRouter(prefix="/v1/batches", tags=["Batch"], responses=ERRORS)

_BODY = {
    "parameters": [idempotency.PARAMETER],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": BatchCreate.model_json_schema()}},
    },
}


@router.post("", openapi_extra=_BODY)
async def create_batch(request: Request, response: Response, parts: FromApp, caller: CallerOf) -> BatchObject:
    """Create a batch from an uploaded file. Answers at once with `validating`; poll it by its id.

    What the SDK repeats by itself makes no second batch.
    """
    body = await _read(request)
    once = idempotency.once_or_repeated(request, caller.owner, body, parts.settings.idempotency_s)
    batch, again = await anyio.to_thread.run_sync(_create_once, body, once, parts)
    if again:
        response.headers.update(idempotency.REPLAYED)
    await parts.replicas.confirm(Keys(parts.settings.key_prefix).batch(batch.spec.id), batch.spec.id)
    return BatchObject.of(as_created(batch))


def _create_once(body: bytes, once: Once, parts: Parts) -> tuple[Batch, bool]:
    """The batch, and whether an earlier request has made it."""
    made = idempotency.find(parts, once)
    if made is not None:
        return parts.ledger.get(made) or gone(made), True
    spec = _spec(parse(BatchCreate, _json(body)), parts, once.owner)
    batch = _create(spec, once, parts)
    return batch, batch.spec.id != spec.id


def _spec(wanted: BatchCreate, parts: Parts, owner: str) -> BatchSpec:
    record = find_file(parts, wanted.input_file_id, owner)
    if record.purpose != "batch":
        raise RequestError(
            f"File '{record.id}' has the purpose '{record.purpose}'; a batch needs one uploaded with 'batch'.",
            param="input_file_id",
            code="invalid_file_purpose",
        )
    routing = None if wanted.routing is None else wanted.routing.asked()
    if routing is not None and (found := wrong(routing, parts.catalogue)):
        raise RequestError(found.message, param=found.param, code="invalid_routing")
    return BatchSpec(
        id=new_batch_id(),
        owner=owner,
        endpoint=wanted.endpoint,
        input_file_id=record.id,
        input_chunks=record.chunks,
        completion_window=wanted.completion_window,
        window_s=window_s(wanted.completion_window),
        retention_s=parts.settings.retention_s,
        output_file_id=new_file_id(),
        error_file_id=new_file_id(),
        lines=min(record.lines, parts.settings.max_batch_jobs),
        metadata=wanted.metadata,
        routing=routing,
        max_cost_nanos=None if wanted.max_cost is None else nanos_up(wanted.max_cost),
        output_expires_after_s=wanted.output_expires_after.seconds if wanted.output_expires_after else None,
    )


def _create(spec: BatchSpec, once: Once, parts: Parts) -> Batch:
    """The batch, or the one that the same request has made meanwhile."""
    parts.room.check(jobs=spec.lines, fresh=True)
    file_id = spec.input_file_id
    if not parts.files.pin(file_id, spec.id, time.time() + spec.window_s + _PIN_BEYOND_S):
        find_file(parts, file_id, spec.owner)  # it went away in between
    try:
        batch = _store(spec, once, parts)
    except RequestError:
        parts.files.unpin(file_id, spec.id)
        raise
    if batch.spec.id == spec.id:
        parts.housekeeper.nudge()
    else:
        parts.files.unpin(file_id, spec.id)
    return batch


def _store(spec: BatchSpec, once: Once, parts: Parts) -> Batch:
    """Creating is safe to repeat by its id: a lost answer must not leave a batch that its caller does not know of."""
    try:
        return parts.ledger.create(spec, once)
    except StoreUnavailableError:
        return parts.ledger.create(spec, once)


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise TooLargeError(f"The body has more than {_MAX_BODY_BYTES:,} bytes.")
    return bytes(body)


def _json(body: bytes) -> object:
    try:
        found = json.loads(body or b"{}")
        json.dumps(found, ensure_ascii=False).encode()  # escaped lone surrogates are JSON, but no text
    except UnicodeEncodeError as exc:
        raise RequestError(
            "The body has text that is not Unicode (a lone surrogate).", code="invalid_json"
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"The body is not JSON: {str(exc)[:200]}.", code="invalid_json") from exc
    return found


@router.get("")
def list_batches(
    parts: FromApp, caller: CallerOf, after: str | None = None, limit: str | None = None
) -> BatchList:
    """The caller's batches, newest first."""
    batches, more = parts.ledger.page(
        caller.owner, after=after, limit=limit_of(limit, default=DEFAULT_PAGE, most=MAX_PAGE)
    )
    data = [BatchObject.of(batch) for batch in batches]
    return BatchList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


def _find(parts: Parts, batch_id: str, owner: str) -> Batch:
    """Raises NotFoundError, in the same words whether it never was, is gone, or is another's."""
    batch = parts.ledger.get(batch_id) if is_id(batch_id) else None
    if batch is None or batch.spec.owner != owner:
        raise NotFoundError(f"No batch found with id '{batch_id[:100]}'.", param="id", code="batch_not_found")
    return batch


@router.get("/{batch_id}")
def retrieve_batch(batch_id: str, parts: FromApp, caller: CallerOf) -> BatchObject:
    batch = _find(parts, batch_id, caller.owner)
    progress, workers = _progress(parts, batch)
    return BatchObject.of(batch, waiting_of(batch, progress, workers, broker_away=parts.broker.away))


@router.get("/{batch_id}/explain")
def explain_batch(batch_id: str, parts: FromApp, caller: CallerOf, line: str | None = None) -> Explanation:
    """Where the open jobs are, what they wait for, and when something happens next.

    With `line`, the number of a request in the input file from 1 on, also what has become of that one so far.
    """
    batch = _find(parts, batch_id, caller.owner)
    progress, workers = _progress(parts, batch)
    job = None if line is None else _job(parts, batch, line)
    stopped, broker_away = _stopped(parts), parts.broker.away
    return Explanation.of(batch, progress, workers, job, stopped=stopped, broker_away=broker_away)


def _stopped(parts: Parts) -> Stopped | None:
    """Why Redis, which does answer, lets nothing begin; workers that it keeps from reporting are not to be taken for dead."""
    try:
        parts.ledger.ping()
        return None if parts.room.now().calls else Stopped(Reason.STORE_FULL)
    except StoreUnavailableError as exc:
        return Stopped(Reason.STORE_AWAY, exc.message.rstrip("."))


def _job(parts: Parts, batch: Batch, line: str) -> LineObject | None:
    """None where the batch does not run: its files tell. Raises RequestError where it has no such line."""
    most = batch.total or batch.spec.lines or parts.settings.max_batch_jobs
    number = whole(line, "line", most)
    if batch.status is not BatchStatus.IN_PROGRESS:
        return None
    job = parts.ledger.job(batch.spec.id, number - 1)
    return None if job is None else LineObject.of(number, job)


def _progress(parts: Parts, batch: Batch) -> tuple[Progress, list[WorkerRecord]]:
    """Where its jobs are, and the workers that are alive."""
    if batch.status is not BatchStatus.IN_PROGRESS:
        return Progress(), []
    return parts.ledger.progress(batch.spec.id), parts.ledger.workers()


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: str, parts: FromApp, caller: CallerOf) -> BatchObject:
    """Begin to cancel: calls in flight finish, the rest is listed in the error file as `batch_cancelled`."""
    _find(parts, batch_id, caller.owner)
    batch = parts.ledger.cancel(batch_id)
    if batch is None:
        raise NotFoundError(f"No batch found with id '{batch_id[:100]}'.", param="id", code="batch_not_found")
    if batch.status.terminal and batch.status is not BatchStatus.CANCELLED:
        raise ConflictError(
            f"Cannot cancel a batch with status '{batch.status.value}'.", code="batch_not_cancellable"
        )
    parts.housekeeper.nudge()
    return BatchObject.of(batch)
