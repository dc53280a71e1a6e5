"""Streaming multipart uploads: the file goes to the store chunk by chunk and never sits in memory, or on disk, whole."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import anyio.to_thread
import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from shared.errors import NO_ROOM, EdgeError, RequestError, StoreUnavailableError, TooLargeError
from shared.files import CHUNK_BYTES
from shared.room import PACKED
from shared.room_watch import RoomWatch

_WRITE_BYTES = 16 * CHUNK_BYTES
_MAX_BOUNDARY = 70  # RFC 2046
_MAX_FIELD_BYTES = 16 * 1024
_MAX_HEADER_BYTES = 8 * 1024
_DRAIN_BYTES = 512 * 1024 * 1024
"""A file that is refused is read to its end up to here, so that the client hears why instead of a reset."""

LINGER_S = 2.0
"""So long the rest of an upload is read that is cut off because this process is being stopped, to the same end."""


T = TypeVar("T")


class Sink(Protocol):
    """Where the chunks go: `shared.files.Files`, or what stands before it."""

    def put(self, file_id: str, first: int, chunks: Sequence[bytes]) -> None: ...

    def discard(self, file_id: str) -> None: ...


class Uploaded(msgspec.Struct, frozen=True):
    """What came: the form's text fields, and the file's name, size in bytes, number of chunks and of lines."""

    fields: dict[str, str]
    filename: str
    size: int
    chunks: int
    lines: int


class _Form:
    """Collects what the parser calls back; `take` hands over file bytes as they come."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.ended = False
        self._data = bytearray()
        self._name = b""
        self._header = [b"", b""]
        self._disposition = b""
        self._in_file = False
        self._field = bytearray()

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data

    def on_part_begin(self) -> None:
        self._disposition, self._in_file = b"", False
        self._field.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] = self._bounded(self._header[0] + data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] = self._bounded(self._header[1] + data[start:end])

    @staticmethod
    def _bounded(value: bytes) -> bytes:
        if len(value) > _MAX_HEADER_BYTES:
            raise RequestError("A header of the form is too long.", code="invalid_multipart")
        return value

    def on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"")
        if self._name == b"file":
            if self.filename is not None:
                raise RequestError(
                    "Send one 'file' part, not several.", param="file", code="invalid_multipart"
                )
            self._in_file = True
            self.filename = options.get(b"filename", b"upload").decode("utf-8", "replace")[:255] or "upload"

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._data += data[start:end]
            return
        self._field += data[start:end]
        if len(self._field) > _MAX_FIELD_BYTES:
            raise RequestError("A field of the form is too long.", code="invalid_multipart")

    def on_part_end(self) -> None:
        if not self._in_file:
            if len(self.fields) >= 32:  # noqa: PLR2004  no known client sends more than three
                raise RequestError("The form has too many fields.", code="invalid_multipart")
            self.fields[self._name.decode("utf-8", "replace")] = self._field.decode("utf-8", "replace")

    def on_end(self) -> None:
        self.ended = True


def _parser(request: Request, form: _Form) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestError(
            "Send the file as multipart/form-data with the parts 'purpose' and 'file'.",
            code="invalid_multipart",
        )
    if len(options[b"boundary"]) > _MAX_BOUNDARY:
        raise RequestError("The form's boundary is too long.", code="invalid_multipart")
    return MultipartParser(
        options[b"boundary"],
        {
            "on_part_begin": form.on_part_begin,
            "on_part_data": form.on_part_data,
            "on_part_end": form.on_part_end,
            "on_header_field": form.on_header_field,
            "on_header_value": form.on_header_value,
            "on_header_end": form.on_header_end,
            "on_headers_finished": form.on_headers_finished,
            "on_end": form.on_end,
        },
    )


class Intake:
    """One file's bytes on their way to the store.

    After a refusal (too large, no room) the rest is read and thrown away, so that the client hears why instead of a reset.
    """

    def __init__(self, files: Sink, room: RoomWatch | None, file_id: str, *, max_bytes: int) -> None:
        self.size = self.chunks = self.lines = 0
        self.refusal: EdgeError | None = None
        self._files = files
        self._room = room
        self._file_id = file_id
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._last = b"\n"

    async def begin(self, announced: int) -> None:
        """Whether there is room for a request of so many bytes; 0 where its size was not told."""
        await self._unless_full(self._look, announced)

    async def add(self, piece: bytes) -> bool:
        """False where the client has sent so much in vain that it need not be heard out."""
        self.size += len(piece)
        self.lines += piece.count(b"\n")
        self._last = piece[-1:] or self._last
        if self.size > self._max_bytes:
            self.refusal = TooLargeError(
                f"The file has more than {self._max_bytes:,} bytes; split it into several.",
                param="file",
                code="file_too_large",
            )
        self._buffer += piece
        while self.refusal is None and len(self._buffer) >= _WRITE_BYTES:
            await self._unless_full(self._store, bytes(self._buffer[:_WRITE_BYTES]))
            del self._buffer[:_WRITE_BYTES]
        if self.refusal is not None:
            self._buffer.clear()
        return self.refusal is None or self.size <= _DRAIN_BYTES

    async def end(self) -> None:
        """Raises what the file was refused for."""
        if self._buffer:
            await self._unless_full(self._store, bytes(self._buffer))
        if self.refusal is not None:
            raise self.refusal
        self.lines += self._last != b"\n"

    async def discard(self) -> None:
        await anyio.to_thread.run_sync(self._files.discard, self._file_id)

    async def _unless_full(self, act: Callable[[T], None], what: T) -> None:
        try:
            await anyio.to_thread.run_sync(act, what)
        except StoreUnavailableError as exc:
            if exc.code != NO_ROOM:
                raise
            self.refusal = exc

    def _look(self, announced: int) -> None:
        if self._room is not None:
            self._room.check(size=int(announced * PACKED), fresh=True)

    def _store(self, data: bytes) -> None:
        if self._room is not None:
            self._room.check(size=int(len(data) * PACKED))
        chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        self._files.put(self._file_id, self.chunks, chunks)
        self.chunks += len(chunks)


async def receive(request: Request, intake: Intake) -> Uploaded:
    """Take in one upload; nothing of it shows until it is published.

    Raises RequestError for a form that is none or is cut short, TooLargeError, StoreUnavailableError where there is no
    room; either way, when the client goes away and when this process is being stopped, what was stored is discarded.
    """
    try:
        return await _receive(request, intake)
    except BaseException as exc:
        with anyio.CancelScope(shield=True):
            await intake.discard()
            if isinstance(exc, asyncio.CancelledError):
                await _linger(request)
        raise


async def _linger(request: Request) -> None:
    with anyio.move_on_after(LINGER_S), suppress(ClientDisconnect, RuntimeError):  # the second: all had come
        async for _ in request.stream():
            pass


async def _receive(request: Request, intake: Intake) -> Uploaded:
    form = _Form()
    await intake.begin(_announced(request))
    async for piece in _pieces(request, form):
        if not await intake.add(piece):
            break
    if intake.refusal is not None:
        raise intake.refusal
    if not form.ended:
        raise RequestError("The upload was cut short; send it again.", param="file", code="invalid_multipart")
    if form.filename is None:
        raise RequestError(
            "Missing required parameter: 'file'.", param="file", code="missing_required_parameter"
        )
    await intake.end()
    return Uploaded(form.fields, form.filename, intake.size, intake.chunks, intake.lines)


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


async def _pieces(request: Request, form: _Form) -> AsyncIterator[bytes]:
    parser = _parser(request, form)
    try:
        async for data in request.stream():
            parser.write(data)
            yield form.take()
        parser.finalize()
    except FormParserError as exc:
        raise RequestError(f"The form cannot be read: {exc}.", code="invalid_multipart") from exc
    except ClientDisconnect as exc:
        raise RequestError("The upload was cut short; send it again.", code="invalid_multipart") from exc
