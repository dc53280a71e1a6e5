"""OpenAI's Files API: upload, list, retrieve, contents, delete."""

import time
from collections.abc import Iterator

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api import idempotency
from api.caller import CallerOf
from api.parts import FromApp, Parts
from api.query import ascending_of, limit_of
from api.schema import ERRORS, ExpiresAfter, FileDeleted, FileList, FileObject, parse
from api.upload import Intake, Uploaded, receive
from shared.errors import NotFoundError, RequestError
from shared.files import CHUNK_BYTES, FileRecord
from shared.idempotency import Once, earlier, gone
from shared.ids import is_id, new_file_id
from shared.keys import Keys

MAX_PAGE = 10_000

router = APIRouter(prefix="/v1/files", tags=["Files"], responses=ERRORS)

_FORM = {
    "parameters": [idempotency.PARAMETER],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    },
}


@router.post("", openapi_extra=_FORM)
async def create_file(request: Request, response: Response, parts: FromApp, caller: CallerOf) -> FileObject:
    """Upload a `.jsonl` file of requests, one JSON object a line, with `purpose=batch`. Streams; up to 200 MB."""
    name = idempotency.name_of(request)
    if name is None:
        file_id = new_file_id()
        intake = Intake(parts.files, parts.room, file_id, max_bytes=parts.settings.max_file_bytes)
        uploaded = await receive(request, intake)
        record = await anyio.to_thread.run_sync(_publish, file_id, uploaded, caller.owner, None, parts)
    else:
        record, again = await _create_once(request, caller.owner, name, parts)
        if again:
            response.headers.update(idempotency.REPLAYED)
    await parts.replicas.confirm(Keys(parts.settings.key_prefix).file(record.id), record.id)
    return FileObject.of(record)


async def _create_once(request: Request, owner: str, name: str, parts: Parts) -> tuple[FileRecord, bool]:
    """The file, and whether an earlier request has made it. What is asked for is known only when all of it has come."""
    kept = await anyio.to_thread.run_sync(parts.idempotency.find, owner, name)
    file_id = new_file_id()
    sink = idempotency.Hashing(parts.files if kept is None else None)
    room = parts.room if kept is None else None  # a repetition stores nothing
    intake = Intake(sink, room, file_id, max_bytes=parts.settings.max_file_bytes)
    uploaded = await receive(request, intake)
    form = msgspec.json.encode([uploaded.filename, uploaded.fields], order="sorted")
    print_ = idempotency.fingerprint(request, form, sink.digest)
    once = Once(owner=owner, name=name, fingerprint=print_, keep_s=parts.settings.idempotency_s)
    made = earlier(kept, once)
    if made is None:
        record = await anyio.to_thread.run_sync(_publish, file_id, uploaded, owner, once, parts)
        return record, record.id != file_id
    return await anyio.to_thread.run_sync(parts.files.get, made) or gone(made), True


def _publish(file_id: str, uploaded: Uploaded, owner: str, once: Once | None, parts: Parts) -> FileRecord:
    """The file, or the one that the same request has made meanwhile."""
    try:
        record = _record(file_id, uploaded, parts, owner)
        made = parts.files.publish(record, once)
    except RequestError:
        parts.files.discard(file_id)
        raise
    if made == file_id:
        return record
    parts.files.discard(file_id)
    return parts.files.get(made) or gone(made)


def _record(file_id: str, uploaded: Uploaded, parts: Parts, owner: str) -> FileRecord:
    purpose = uploaded.fields.get("purpose")
    if purpose is None:
        raise RequestError(
            "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
        )
    if purpose != "batch":
        raise RequestError(
            f"Invalid 'purpose': '{purpose[:50]}' is not served here; the only purpose is 'batch', for the endpoints"
            " /v1/chat/completions and /v1/completions.",
            param="purpose",
            code="invalid_value",
        )
    created_at = int(time.time())
    return FileRecord(
        id=file_id,
        owner=owner,
        filename=uploaded.filename,
        purpose="batch",
        bytes=uploaded.size,
        created_at=created_at,
        expires_at=created_at + (_expiry_s(uploaded.fields) or int(parts.settings.retention_s)),
        chunks=uploaded.chunks,
        chunk_bytes=CHUNK_BYTES,
        lines=uploaded.lines,
    )


def _expiry_s(fields: dict[str, str]) -> int | None:
    given = {name: value for name, value in fields.items() if name.startswith("expires_after")}
    if not given:
        return None
    names = {f"expires_after[{name}]": name for name in ("anchor", "seconds")}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise RequestError(
            f"Unknown parameter: '{unknown[0][:60]}'; send expires_after[anchor] and expires_after[seconds].",
            param=unknown[0][:60],
            code="unknown_parameter",
        )
    try:
        return parse(ExpiresAfter, {names[name]: value for name, value in given.items()}).seconds
    except RequestError as exc:
        inner = f"expires_after[{exc.param}]"
        raise RequestError(
            exc.message.replace(f"'{exc.param}'", f"'{inner}'"), param=inner, code=exc.code
        ) from exc


@router.get("")
def list_files(
    parts: FromApp,
    caller: CallerOf,
    purpose: str | None = None,
    after: str | None = None,
    limit: str | None = None,
    order: str | None = None,
) -> FileList:
    """The caller's files, newest first unless `order=asc`."""
    records, more = parts.files.page(
        caller.owner,
        purpose=purpose,
        after=after,
        limit=limit_of(limit, default=MAX_PAGE, most=MAX_PAGE),
        ascending=ascending_of(order),
    )
    data = [FileObject.of(record) for record in records]
    return FileList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


def find(parts: Parts, file_id: str, owner: str) -> FileRecord:
    """Raises NotFoundError, in the same words whether it never was, is gone, or is another's."""
    record = parts.files.get(file_id) if is_id(file_id) else None
    if record is None or record.owner != owner:
        raise NotFoundError(f"No such File object: {file_id[:100]}", param="id")
    return record


@router.get("/{file_id}")
def retrieve_file(file_id: str, parts: FromApp, caller: CallerOf) -> FileObject:
    return FileObject.of(find(parts, file_id, caller.owner))


@router.delete("/{file_id}")
def delete_file(file_id: str, parts: FromApp, caller: CallerOf) -> FileDeleted:
    """Delete a file. A batch that is running from it goes on."""
    find(parts, file_id, caller.owner)
    parts.files.delete(file_id)
    return FileDeleted(id=file_id)


@router.get("/{file_id}/content", response_class=StreamingResponse)
def file_content(file_id: str, parts: FromApp, caller: CallerOf) -> StreamingResponse:
    """The file's bytes."""
    record = find(parts, file_id, caller.owner)
    chunks = parts.files.read(record.id, record.chunks)
    first = next(chunks, b"")  # what is gone is a 404, not a broken stream

    def stream() -> Iterator[bytes]:
        yield first
        yield from (chunk for chunk in chunks if chunk)

    headers = {"Content-Length": str(record.bytes)}
    return StreamingResponse(stream(), media_type="application/octet-stream", headers=headers)
