"""The file store on Redis or Valkey: a file's chunks, each compressed, are the fields of one hash."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import redis
import zstandard

from shared.errors import KeyReusedError, NotFoundError
from shared.files import CHUNK_BYTES, UNPUBLISHED_S, FileRecord
from shared.idempotency import Once
from shared.keys import Keys
from shared.redis_client import store_errors
from shared.scripts import Scripts

_LEVEL = 1  # 300 MB/s and more a core; a higher level gains little on chunks of this size
_READ_AHEAD = 16

_record = msgspec.json.Decoder(FileRecord)


class RedisFiles:
    """The contract: `shared.files.Files`."""

    def __init__(self, client: redis.Redis, prefix: str = "le") -> None:
        self._redis = client
        self._keys = Keys(prefix)
        self._run = Scripts(client, prefix).run

    def put(
        self,
        file_id: str,
        first: int,
        chunks: Sequence[bytes],
        *,
        unpublished_s: float = UNPUBLISHED_S,
        promised: bool = False,
    ) -> None:
        packed = {n: zstandard.compress(chunk, _LEVEL) for n, chunk in enumerate(chunks, first) if chunk}
        if not packed:
            return
        self._run(
            "put_promised" if promised else "put",
            id=file_id,
            seconds=int(unpublished_s),
            chunks=[(number, len(chunk)) for number, chunk in packed.items()],
            blob=b"".join(packed.values()),
        )

    def publish(self, record: FileRecord, once: Once | None = None) -> str:
        made: bytes = self._run(
            "publish",
            id=record.id,
            owner=record.owner,
            record=msgspec.json.encode(record).decode(),
            expires_at=record.expires_at or False,
            once=once or False,
        )
        if not made:
            raise KeyReusedError
        return made.decode()

    def get(self, file_id: str) -> FileRecord | None:
        with store_errors():
            raw: Any = self._redis.get(self._keys.file(file_id))
        return _record.decode(raw) if raw else None

    def page(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[FileRecord], bool]:
        found: list[FileRecord] = []
        cursor = after
        while len(found) <= limit:
            ids = self._ids(owner, cursor, limit + 1, ascending=ascending)
            if not ids:
                break
            with store_errors():
                rows: Any = self._redis.mget([self._keys.file(i) for i in ids])
            gone = [i for i, row in zip(ids, rows, strict=True) if row is None]
            if gone:  # expired
                with store_errors():
                    self._redis.zrem(self._keys.files(owner), *gone)
            records = [_record.decode(row) for row in rows if row]
            found += [r for r in records if purpose in {None, r.purpose}]
            cursor = ids[-1]
        return found[:limit], len(found) > limit

    def _ids(self, owner: str, after: str | None, count: int, *, ascending: bool) -> list[str]:
        key = self._keys.files(owner)
        with store_errors():
            ids: Any = (
                self._redis.zrangebylex(key, f"({after}" if after else "-", "+", start=0, num=count)
                if ascending
                else self._redis.zrevrangebylex(key, f"({after}" if after else "+", "-", start=0, num=count)
            )
        return [i.decode() for i in ids]

    def read(self, file_id: str, chunks: int) -> Iterator[bytes]:
        for first in range(0, chunks, _READ_AHEAD):
            numbers = range(first, min(first + _READ_AHEAD, chunks))
            yield from self._chunks(file_id, numbers, sparse=True)

    def slices(self, file_id: str, places: Sequence[tuple[int, int]]) -> list[bytes]:
        wanted = sorted(
            {n for at, size in places for n in range(at // CHUNK_BYTES, (at + size - 1) // CHUNK_BYTES + 1)}
        )
        chunks = dict(zip(wanted, self._chunks(file_id, wanted, sparse=False), strict=True))
        return [_cut(chunks, at, size) for at, size in places]

    def _chunks(self, file_id: str, numbers: Sequence[int], *, sparse: bool) -> list[bytes]:
        if not numbers:
            return []
        key = self._keys.chunks(file_id)
        with store_errors():
            rows: Any = self._redis.hmget(key, [str(n) for n in numbers])
        if any(row is None for row in rows) and not (sparse and self._present(key)):
            raise NotFoundError(
                f"The contents of file '{file_id}' are gone; they were deleted or have expired."
            )
        return [zstandard.decompress(row) if row else b"" for row in rows]

    def _present(self, key: str) -> bool:
        with store_errors():
            return bool(self._redis.exists(key))

    def pin(self, file_id: str, batch_id: str, until: float) -> bool:
        return bool(self._run("pin", id=file_id, batch=batch_id, until=until))

    def unpin(self, file_id: str, batch_id: str) -> None:
        self._run("unpin", id=file_id, batch=batch_id)

    def delete(self, file_id: str) -> bool:
        return bool(self._run("delete_file", id=file_id))

    def discard(self, file_id: str) -> None:
        with store_errors():
            self._redis.unlink(self._keys.chunks(file_id))


def _cut(chunks: dict[int, bytes], offset: int, size: int) -> bytes:
    first, start = divmod(offset, CHUNK_BYTES)
    head = chunks[first][start : start + size]
    if len(head) == size:
        return head
    last = (offset + size - 1) // CHUNK_BYTES
    whole = b"".join(chunks[n] for n in range(first, last + 1))
    return whole[start : start + size]
