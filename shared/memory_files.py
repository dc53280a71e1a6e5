"""The file store's memory twin, for tests."""

from collections.abc import Iterator, Sequence

from shared.clock import Clock
from shared.errors import NotFoundError
from shared.files import CHUNK_BYTES, UNPUBLISHED_S, FileRecord
from shared.idempotency import Once
from shared.memory_idempotency import MemoryIdempotency


class MemoryFiles:
    """The contract: `shared.files.Files`."""

    def __init__(self, clock: Clock, keys: MemoryIdempotency | None = None) -> None:
        self._clock = clock
        self._keys = keys or MemoryIdempotency(clock)
        self._records: dict[str, FileRecord] = {}
        self._chunks: dict[str, dict[int, bytes]] = {}
        self._until: dict[str, float] = {}
        self._pins: dict[str, dict[str, float]] = {}

    def put(
        self,
        file_id: str,
        first: int,
        chunks: Sequence[bytes],
        *,
        unpublished_s: float = UNPUBLISHED_S,
        promised: bool = False,  # noqa: ARG002  there is always room
    ) -> None:
        self._sweep()
        stored = {n: bytes(c) for n, c in enumerate(chunks, first) if c}
        if stored:
            self._chunks.setdefault(file_id, {}).update(stored)
            self._until[file_id] = self._clock.now() + int(unpublished_s)

    def publish(self, record: FileRecord, once: Once | None = None) -> str:
        made = self._keys.earlier(once)
        if made not in {None, record.id}:
            return made or ""
        self._keys.keep(once, record.id)
        self._records[record.id] = record
        if record.expires_at is None:
            self._until.pop(record.id, None)
        else:
            self._until[record.id] = record.expires_at
        return record.id

    def get(self, file_id: str) -> FileRecord | None:
        record = self._records.get(file_id)
        expired = (
            record is not None and record.expires_at is not None and record.expires_at <= self._clock.now()
        )
        return None if expired else record

    def page(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[FileRecord], bool]:
        mine = sorted(
            (r for r in self._records.values() if r.owner == owner and self.get(r.id)),
            key=lambda r: r.id,
            reverse=not ascending,
        )
        found = [
            r
            for r in mine
            if purpose in {None, r.purpose}
            and (after is None or (r.id > after if ascending else r.id < after))
        ]
        return found[:limit], len(found) > limit

    def read(self, file_id: str, chunks: int) -> Iterator[bytes]:
        self._sweep()
        if chunks and file_id not in self._chunks:
            raise NotFoundError(
                f"The contents of file '{file_id}' are gone; they were deleted or have expired."
            )
        for n in range(chunks):
            yield self._chunks[file_id].get(n, b"")

    def slices(self, file_id: str, places: Sequence[tuple[int, int]]) -> list[bytes]:
        if not places:
            return []
        last = max((at + size - 1) // CHUNK_BYTES for at, size in places)
        whole = b"".join(self.read(file_id, last + 1))
        return [whole[at : at + size] for at, size in places]

    def pin(self, file_id: str, batch_id: str, until: float) -> bool:
        if self.get(file_id) is None:
            return False
        self._pins.setdefault(file_id, {})[batch_id] = until
        if file_id in self._until:
            self._until[file_id] = max(self._until[file_id], until)
        return True

    def unpin(self, file_id: str, batch_id: str) -> None:
        self._pins.get(file_id, {}).pop(batch_id, None)
        record = self.get(file_id)
        if record is None and not self._pinned(file_id):
            self._chunks.pop(file_id, None)
        elif record is not None and record.expires_at is not None:
            self._until[file_id] = max([record.expires_at, *self._pins.get(file_id, {}).values()])

    def delete(self, file_id: str) -> bool:
        if self.get(file_id) is None:
            return False
        del self._records[file_id]
        if not self._pinned(file_id):
            self._chunks.pop(file_id, None)
        return True

    def discard(self, file_id: str) -> None:
        self._chunks.pop(file_id, None)

    def _pinned(self, file_id: str) -> bool:
        return any(until > self._clock.now() for until in self._pins.get(file_id, {}).values())

    def _sweep(self) -> None:
        for file_id, until in list(self._until.items()):
            if until <= self._clock.now():
                self._chunks.pop(file_id, None)
                del self._until[file_id]
