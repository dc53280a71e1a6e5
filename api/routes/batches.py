"""OpenAI's Batch API: create, retrieve, list, cancel."""

import json
import time

import anyio.to_thread
from fastapi import APIRouter, Request

from api.caller import CallerOf
from api.parts import FromApp, Parts
from api.query import limit_of
from api.routes.files import find as find_file
from api.schema import ERRORS, BatchCreate, BatchList, BatchObject, parse, window_s
from shared.errors import ConflictError, NotFoundError, RequestError, StoreUnavailableError, TooLargeError
from shared.ids import is_id, new_batch_id, new_file_id
from shared.jobs import Batch, BatchSpec, BatchStatus

MAX_PAGE = 100
DEFAULT_PAGE = 20
_MAX_BODY_BYTES = 256 * 1024
_PIN_BEYOND_S = 86_400.0  # calls in flight at a batch's end, and its finalizing, still need the input

router = APIRouter(prefix="/v1/batches", tags=["Batch"], responses=ERRORS)

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": BatchCreate.model_json_schema()}},
    }
}


@router.post("", openapi_extra=_BODY)
async def create_batch(request: Request, parts: FromApp, caller: CallerOf) -> BatchObject:
    """Create a batch from an uploaded file. Answers at once with `validating`; poll it by its id."""
    wanted = parse(BatchCreate, await read_json(request))
    return BatchObject.of(await anyio.to_thread.run_sync(_create, wanted, parts, caller.owner))


def _create(wanted: BatchCreate, parts: Parts, owner: str) -> Batch:
    record = find_file(parts, wanted.input_file_id, owner)
    if record.purpose != "batch":
        raise RequestError(
            f"File '{record.id}' has the purpose '{record.purpose}'; a batch needs one uploaded with 'batch'.",
            param="input_file_id",
            code="invalid_file_purpose",
        )
    seconds = window_s(wanted.completion_window)
    spec = BatchSpec(
        id=new_batch_id(),
        owner=owner,
        endpoint=wanted.endpoint,
        input_file_id=record.id,
        input_chunks=record.chunks,
        completion_window=wanted.completion_window,
        window_s=seconds,
        retention_s=parts.settings.retention_s,
        output_file_id=new_file_id(),
        error_file_id=new_file_id(),
        lines=min(record.lines, parts.settings.max_batch_jobs),
        metadata=wanted.metadata,
        output_expires_after_s=wanted.output_expires_after.seconds if wanted.output_expires_after else None,
    )
    parts.room.check(jobs=spec.lines, fresh=True)
    if not parts.files.pin(record.id, spec.id, time.time() + seconds + _PIN_BEYOND_S):
        find_file(parts, record.id, owner)  # it went away in between
    batch = _store(spec, parts)
    parts.housekeeper.nudge()
    return batch


def _store(spec: BatchSpec, parts: Parts) -> Batch:
    """Creating is safe to repeat by its id: a lost answer must not leave a batch that its caller does not know of."""
    try:
        return parts.ledger.create(spec)
    except StoreUnavailableError:
        return parts.ledger.create(spec)


async def read_json(request: Request) -> object:
    """The request's body as JSON, at most 256 KiB of it. Raises RequestError."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise TooLargeError(f"The body has more than {_MAX_BODY_BYTES:,} bytes.")
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
    return BatchObject.of(_find(parts, batch_id, caller.owner))


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
