"""Completions: lone jobs whose callers wait for the result, or are told where to find it."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from api import idempotency, job_result
from api.caller import caller_of
from api.crew import SURE_S, unbegun
from api.desk import Heard
from api.job_result import Answer
from api.job_schema import JobObject
from api.parts import Parts, parts_of
from api.schema import ERRORS
from shared.errors import NotFoundError, RequestError, StoreUnavailableError, TooLargeError
from shared.idempotency import Once, gone
from shared.ids import new_job_id
from shared.jobs import Fault, Waiting
from shared.keys import Keys
from shared.lines import MAX_LINE_BYTES, check_body
from shared.lone import JobStatus, LoneJob, LoneSpec, NewJob, Parked
from shared.offer import CatalogueOffer
from shared.reasons import idles_the_fleet, takes_a_person
from shared.spending import owner_purse


class _Direct(APIRoute):
    """Served by its endpoint alone: these two read the request themselves, and FastAPI's reading is half a submit's CPU."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


router = APIRouter(prefix="/v1", tags=["Completions"], responses=ERRORS, route_class=_Direct)

LARGE_BYTES = 64 * 1024
"""A larger body is looked at in a thread: under a quota its tokens are estimated, which may take seconds for the largest."""

_GONE = 499  # nginx' status for a caller who left; nobody reads it
_MOMENT_S = (
    0.5  # at its caller's limit, a parked job may just be asked about anew: what comes of that is soon heard
)
_HEADERS = {
    "parameters": [
        idempotency.PARAMETER,
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": ["respond-async"]},
            "description": "`respond-async` answers 202 at once, with the job's `Location`.",
        },
    ]
}


def _doc(content: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["model", content],
        "properties": {"model": {"type": "string"}, content: {}},
        "additionalProperties": True,
    }
    return {
        **_HEADERS,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
    }


@router.post("/chat/completions", openapi_extra=_doc("messages"))
async def chat_completion(request: Request) -> Response:
    """A chat completion, routed over the providers. Everything but `model` goes to the provider as it is."""
    return await _complete(request, "/v1/chat/completions")


@router.post("/completions", openapi_extra=_doc("prompt"))
async def completion(request: Request) -> Response:
    """A completion of the older form, with a `prompt`."""
    return await _complete(request, "/v1/completions")


class _Asked(msgspec.Struct, frozen=True):
    """What a request asks for. `repeated`: the SDK says that it has sent it before."""

    owner: str
    endpoint: str
    body: bytes
    once: Once | None
    repeated: bool
    waits: bool


async def _complete(request: Request, endpoint: str) -> Response:
    parts = await parts_of(request)
    caller = await caller_of(request)
    asked = await _read(request, caller.owner, endpoint, parts.settings.idempotency_s)
    if asked.once is not None:
        made = await anyio.to_thread.run_sync(idempotency.find, parts, asked.once)
        if made is not None:
            return await _again(made, asked, request, parts)
    job = await _new_job(asked, parts)
    return await (_wait if asked.waits else _hand_in)(job, asked, request, parts)


async def _wait(job: NewJob, asked: _Asked, request: Request, parts: Parts) -> Response:
    """The job's result, or that of the job which the same request has made before."""
    found = await _earlier(asked, job, parts)
    if found is not None:
        return _response(await _outcome(*found, asked, request, parts))
    job_id = job.spec.id
    ended = parts.desk.expect(job_id)
    try:
        taken = await parts.desk.submit(job)
    except Exception:
        ended.cancel()
        raise
    if taken.id != job_id:
        ended.cancel()
        return await _again(taken.id, asked, request, parts)
    return _response(await _outcome(job_id, ended, asked, request, parts))


async def _hand_in(job: NewJob, asked: _Asked, request: Request, parts: Parts) -> Response:
    """Where the job's result will be found."""
    earlier = await _attach(asked, job, parts)
    if (
        earlier is not None
        and (before := await anyio.to_thread.run_sync(parts.lone.get, earlier)) is not None
    ):
        return await _accepted(before.spec, before.created_at, parts)
    taken = await parts.desk.submit(job)
    if taken.id != job.spec.id:
        return await _again(taken.id, asked, request, parts)
    return await _accepted(job.spec, taken.at or (await _found(taken.id, parts)).created_at, parts)


async def _again(job_id: str, asked: _Asked, request: Request, parts: Parts) -> Response:
    """The answer about the job that the request's key has made before, as its first caller gets or got it."""
    if asked.waits:
        ended = parts.desk.expect(job_id, in_store=True)
        try:
            job = await anyio.to_thread.run_sync(parts.lone.wait, job_id, parts.desk.name)
        except Exception:
            ended.cancel()
            raise
        if job is None or job.status.terminal:
            ended.cancel()
            response = _response(_from_record(job_id, job or gone(job_id)))
        elif job.waiting is not None and _too_long(job.waiting, _lasts_s(job.waiting), parts.settings.wait_s):
            ended.cancel()
            await anyio.to_thread.run_sync(_leave, parts, job_id, False)
            response = _response(job_result.no_provider(job_id, job.waiting, _lasts_s(job.waiting)))
        else:
            response = _response(await _outcome(job_id, ended, asked, request, parts))
    else:
        job = await _found(job_id, parts)
        response = await _accepted(job.spec, job.created_at, parts)
    response.headers.update(idempotency.REPLAYED)
    return response


async def _read(request: Request, owner: str, endpoint: str, keep_s: int) -> _Asked:
    waits = "respond-async" not in request.headers.get("prefer", "").lower()
    body = await _body(request)
    once = idempotency.once_of(request, owner, body, keep_s)
    return _Asked(owner, endpoint, body, once, idempotency.repeated(request), waits)


async def _new_job(asked: _Asked, parts: Parts) -> NewJob:
    """Raises NotFoundError or RequestError where it cannot run."""
    if len(asked.body) > LARGE_BYTES:
        return await anyio.to_thread.run_sync(_checked, asked, parts)
    return _checked(asked, parts)


def _checked(asked: _Asked, parts: Parts) -> NewJob:
    endpoint, body = asked.endpoint, asked.body
    catalogue = parts.catalogue
    purse = owner_purse(asked.owner, catalogue.owners, time.time())
    model = check_body(body, endpoint, CatalogueOffer(catalogue, purses=(purse,) if purse else ()))
    if isinstance(model, Fault):
        kind = NotFoundError if model.code == "model_not_found" else RequestError
        raise kind(model.message, code=model.code, param=model.param)
    how = f"{endpoint} {'waits' if asked.waits else 'polls'}\n".encode()
    fingerprint = (
        "" if asked.once else hashlib.sha256(how + body).hexdigest()[:32]
    )  # else it is found by its key
    settings = parts.settings
    least_s = asked.once.keep_s if asked.once else 0.0  # as long as the key, the result is there
    spec = LoneSpec(
        id=new_job_id(),
        owner=asked.owner,
        endpoint=endpoint,
        model=model,
        fingerprint=fingerprint,
        window_s=settings.job_window_s,
        retention_s=max(least_s, settings.job_retention_s),
        delivered_retention_s=max(least_s, settings.delivered_retention_s),
    )
    return NewJob(spec, body, parts.desk.name if asked.waits else "", asked.once)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(
            "Content-Encoding is not supported: send the body as it is.", code="invalid_request"
        )
    parts: list[bytes] = []
    size = 0
    async for piece in request.stream():
        parts.append(piece)
        size += len(piece)
        if size > MAX_LINE_BYTES:
            raise TooLargeError(f"The body has more than {MAX_LINE_BYTES:,} bytes.")
    body = b"".join(parts)
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as exc:
            raise RequestError("The body is not UTF-8.", code="invalid_json") from exc
    return body


async def _attach(asked: _Asked, job: NewJob, parts: Parts) -> str | None:
    """The job that a repeated request asked for before, if its first caller has gone."""
    spec = job.spec
    if not asked.repeated or not spec.fingerprint:
        return None
    return await anyio.to_thread.run_sync(parts.lone.attach, spec.owner, spec.fingerprint, job.caller)


async def _earlier(asked: _Asked, job: NewJob, parts: Parts) -> "tuple[str, asyncio.Future[Heard]] | None":
    """That job, and how it ends; None, too, where it has just ended without a call."""
    job_id = await _attach(asked, job, parts)
    if job_id is None:
        return None
    ended = parts.desk.expect(job_id, in_store=True)
    try:
        now = await anyio.to_thread.run_sync(parts.lone.get, job_id)
    except Exception:
        ended.cancel()
        raise
    if now is None or (now.status.terminal and not now.line):
        ended.cancel()
        return None
    if now.status.terminal and not ended.done():
        ended.set_result("")
    return job_id, ended


async def _outcome(
    job_id: str, ended: "asyncio.Future[Heard]", asked: _Asked, request: Request, parts: Parts
) -> Answer | None:
    """How the job ended; that it goes on beyond the wait limit or this process' own end, or cannot be done within the limit; None where the caller has left."""
    left: asyncio.Future[Any] = asyncio.ensure_future(
        request.receive()
    )  # after the body only the disconnection can come
    try:
        heard = await _heard(job_id, ended, left, parts)
    except asyncio.CancelledError:  # this process is being stopped
        await anyio.to_thread.run_sync(_leave, parts, job_id, False)
        return job_result.stopping(job_id)
    finally:
        left_us = left.done() and not left.cancelled()
        left.cancel()
    if isinstance(heard, Parked):
        await anyio.to_thread.run_sync(_leave, parts, job_id, asked.once is None)
        return job_result.no_provider(job_id, heard, heard.lasts_s)
    if heard is not None:
        if heard:
            return job_result.answer(job_id, heard)
        job = await anyio.to_thread.run_sync(parts.lone.get, job_id)
        return _from_record(job_id, job)
    await anyio.to_thread.run_sync(_leave, parts, job_id, left_us and asked.once is None)
    return None if left_us else job_result.too_slow(job_id, parts.settings.wait_s)


async def _heard(
    job_id: str, ended: "asyncio.Future[Heard]", left: "asyncio.Future[Any]", parts: Parts
) -> Heard | None:
    """How it ended, or what keeps it from being done within the wait limit; None where it goes on beyond that, or the caller has left."""
    until, parked, extended = time.monotonic() + parts.settings.wait_s, False, False
    try:
        while True:
            await asyncio.wait(
                {ended, left}, timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
            )
            if left.done():
                return None
            if not ended.done():  # the wait is over
                why = await anyio.to_thread.run_sync(_why_not, parts, job_id)
                if not ended.done() and (why is not None or not parked or extended):
                    return why
                until, extended = time.monotonic() + _MOMENT_S, True
                continue
            heard = ended.result()
            if not isinstance(heard, Parked) or _too_long(heard, heard.lasts_s, until - time.monotonic()):
                return heard
            ended, parked = parts.desk.expect(job_id, in_store=True), True  # it comes back in time
    finally:
        ended.cancel()


def _why_not(parts: Parts, job_id: str) -> Parked | None:
    """Why the job is not called now; None where it is under way, or behind others."""
    job = parts.lone.get(job_id)
    if job is None:
        return None
    if job.waiting is not None:
        return Parked(**msgspec.structs.asdict(job.waiting), lasts_s=_lasts_s(job.waiting))
    idle = parts.crew.idle(SURE_S)
    return unbegun(idle) if idle is not None and job.status is JobStatus.QUEUED else None


def _too_long(waiting: Waiting, lasts_s: float, patience_s: float) -> bool:
    """Whether nothing can serve the job while its caller waits: not in that time, or not before somebody mends it."""
    return lasts_s > patience_s or takes_a_person(waiting.reason) or idles_the_fleet(waiting.reason)


def _lasts_s(waiting: Waiting) -> float:
    """By this machine's clock, which Redis' should not be far from."""
    return waiting.until - time.time()


def _leave(parts: Parts, job_id: str, cancel: bool) -> None:  # noqa: FBT001  run_sync takes no keywords
    if not parts.desk.waited_for(job_id):
        parts.lone.leave(job_id, parts.desk.name, cancel=cancel)


def _from_record(job_id: str, job: LoneJob | None) -> Answer:
    if job is None:  # a server that was killed may forget its last second
        raise StoreUnavailableError(
            f"The job {job_id} was lost by Redis before it had ended; ask again.", code="job_lost"
        )
    return job_result.answer(job_id, job.line) if job.line else job_result.unanswered(job_id, job.status)


def _response(found: Answer | None) -> Response:
    if found is None:
        return Response(status_code=_GONE)
    return Response(found.body, found.status, found.headers, "application/json")


async def _accepted(spec: LoneSpec, at: float, parts: Parts) -> Response:
    """The job as it was when it was taken in."""
    await parts.replicas.confirm(Keys(parts.settings.key_prefix).job(spec.id), spec.id)
    job = LoneJob(spec=spec, status=JobStatus.QUEUED, created_at=at, expires_at=at + spec.window_s)
    headers = {"location": f"/v1/jobs/{spec.id}", "preference-applied": "respond-async"}
    return Response(JobObject.of(job).model_dump_json(), 202, headers, "application/json")


async def _found(job_id: str, parts: Parts) -> LoneJob:
    return await anyio.to_thread.run_sync(parts.lone.get, job_id) or gone(job_id)
