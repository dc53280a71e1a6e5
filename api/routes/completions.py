"""Completions: lone jobs whose callers wait for the result, or are told where to find it."""

import asyncio
import hashlib
from typing import Any

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Request, Response

from api import job_result
from api.caller import CallerOf
from api.job_result import Answer
from api.job_schema import JobObject
from api.parts import FromApp, Parts
from api.schema import ERRORS
from shared.errors import NotFoundError, RequestError, StoreUnavailableError, TooLargeError
from shared.ids import new_job_id
from shared.jobs import Fault
from shared.lines import MAX_LINE_BYTES, check_body
from shared.lone import JobStatus, LoneJob, LoneSpec, NewJob

router = APIRouter(prefix="/v1", tags=["Completions"], responses=ERRORS)

_GONE = 499  # nginx' status for a caller who left; nobody reads it
_PREFER = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": ["respond-async"]},
            "description": "`respond-async` answers 202 at once, with the job's `Location`.",
        }
    ]
}


def _doc(content: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["model", content],
        "properties": {"model": {"type": "string"}, content: {}},
        "additionalProperties": True,
    }
    return {**_PREFER, "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/chat/completions", openapi_extra=_doc("messages"))
async def chat_completion(request: Request, parts: FromApp, caller: CallerOf) -> Response:
    """A chat completion, routed over the providers. Everything but `model` goes to the provider as it is."""
    return await _complete(request, parts, caller.owner, "/v1/chat/completions")


@router.post("/completions", openapi_extra=_doc("prompt"))
async def completion(request: Request, parts: FromApp, caller: CallerOf) -> Response:
    """A completion of the older form, with a `prompt`."""
    return await _complete(request, parts, caller.owner, "/v1/completions")


class _Asked(msgspec.Struct, frozen=True):
    """A request that can run. `repeated`: the SDK says that it has sent it before."""

    job: NewJob
    repeated: bool
    waits: bool


async def _complete(request: Request, parts: Parts, owner: str, endpoint: str) -> Response:
    asked = await _read(request, parts, owner, endpoint)
    if not asked.waits:
        return await _accepted(asked.job.spec, await parts.desk.submit(asked.job), parts)
    job_id = await _earlier(asked, parts) if asked.repeated else None
    ended = parts.desk.expect(job_id or asked.job.spec.id, in_store=job_id is not None)
    if job_id is None:
        job_id = asked.job.spec.id
        try:
            await parts.desk.submit(asked.job)
        except StoreUnavailableError:
            ended.cancel()
            raise
    elif await _has_ended(job_id, parts):
        ended.set_result("")
    return _response(await _outcome(job_id, ended, request, parts))


async def _read(request: Request, parts: Parts, owner: str, endpoint: str) -> _Asked:
    body = await _body(request)
    model = check_body(body, endpoint, parts.catalogue.serves)
    if isinstance(model, Fault):
        kind = NotFoundError if model.code == "model_not_found" else RequestError
        raise kind(model.message, code=model.code, param=model.param)
    waits = "respond-async" not in request.headers.get("prefer", "").lower()
    fingerprint = hashlib.sha256(endpoint.encode() + b"\n" + body).hexdigest()[:32] if waits else ""
    settings = parts.settings
    spec = LoneSpec(
        id=new_job_id(),
        owner=owner,
        endpoint=endpoint,
        model=model,
        fingerprint=fingerprint,
        window_s=settings.job_window_s,
        retention_s=settings.job_retention_s,
        delivered_retention_s=settings.delivered_retention_s,
    )
    repeated = request.headers.get("x-stainless-retry-count", "0") != "0"
    return _Asked(NewJob(spec, body, parts.desk.name if waits else ""), repeated, waits)


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


async def _earlier(asked: _Asked, parts: Parts) -> str | None:
    """The job that this request asked for before, if its first caller has gone."""
    spec = asked.job.spec
    return await anyio.to_thread.run_sync(parts.lone.attach, spec.owner, spec.fingerprint, parts.desk.name)


async def _has_ended(job_id: str, parts: Parts) -> bool:
    job = await anyio.to_thread.run_sync(parts.lone.get, job_id)
    return job is None or job.status.terminal


async def _outcome(
    job_id: str, ended: "asyncio.Future[str]", request: Request, parts: Parts
) -> Answer | None:
    """How the job ended, that it goes on beyond the wait limit, or None where the caller has left."""
    limit_s = parts.settings.wait_s
    left: asyncio.Future[Any] = asyncio.ensure_future(
        request.receive()
    )  # after the body only the disconnection can come
    either: set[asyncio.Future[Any]] = {ended, left}
    try:
        await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone = left.done() and not left.cancelled()
        left.cancel()
    if ended.done() and not gone:
        line: str | bytes = ended.result()
        if line:
            return job_result.answer(job_id, line)
        job = await anyio.to_thread.run_sync(parts.lone.get, job_id)
        return _from_record(job_id, job)
    ended.cancel()
    await anyio.to_thread.run_sync(_leave, parts, job_id, gone)
    return None if gone else job_result.too_slow(job_id, limit_s)


def _leave(parts: Parts, job_id: str, cancel: bool) -> None:  # noqa: FBT001  run_sync takes no keywords
    if not parts.desk.waited_for(job_id):
        parts.lone.leave(job_id, parts.desk.name, cancel=cancel)


def _from_record(job_id: str, job: LoneJob | None) -> Answer:
    if job is None:
        raise NotFoundError(f"The job {job_id} is not there any more.", code="job_not_found")
    return job_result.answer(job_id, job.line) if job.line else job_result.unanswered(job_id, job.status)


def _response(found: Answer | None) -> Response:
    if found is None:
        return Response(status_code=_GONE)
    return Response(found.body, found.status, found.headers, "application/json")


async def _accepted(spec: LoneSpec, at: float | None, parts: Parts) -> Response:
    if at is None:
        job = await anyio.to_thread.run_sync(parts.lone.get, spec.id)
    else:
        job = LoneJob(spec=spec, status=JobStatus.QUEUED, created_at=at, expires_at=at + spec.window_s)
    if job is None:
        raise NotFoundError(f"The job {spec.id} is not there any more.", code="job_not_found")
    headers = {"location": f"/v1/jobs/{spec.id}", "preference-applied": "respond-async"}
    return Response(JobObject.of(job).model_dump_json(), 202, headers, "application/json")
