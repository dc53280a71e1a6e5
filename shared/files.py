"""The contract of the file store: input, output and error files as numbered chunks. A door of its own, so that an object store can stand behind it."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from shared.idempotency import Once

CHUNK_BYTES = 64 * 1024
"""The size of an uploaded file's chunks (its last one is shorter), so that a slice is found by arithmetic."""

UNPUBLISHED_S = 3600.0
"""Chunks of an upload that was never completed are dropped after this long."""

Purpose = Literal["batch", "batch_output"]


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file as a client sees it, and how it is cut. `chunk_bytes` is 0 where the chunks differ in size.

    `lines`: of an uploaded file, how many jobs it has at most.
    """

    v: int = 1
    id: str
    owner: str
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    expires_at: int | None
    chunks: int
    chunk_bytes: int
    lines: int = 0


class Files(Protocol):
    """What api and workers may ask of the file store."""

    def put(
        self,
        file_id: str,
        first: int,
        chunks: Sequence[bytes],
        *,
        unpublished_s: float = UNPUBLISHED_S,
        promised: bool = False,
    ) -> None:
        """Store chunks number `first`, `first + 1`, ...; an empty one is not stored.

        Nothing shows until `publish`; what is not published within `unpublished_s` of the last chunk is dropped.
        `promised`: their room was promised when the jobs were accepted, so they are stored even where memory is full.
        """
        ...

    def publish(self, record: FileRecord, once: Once | None = None) -> str:
        """Make a file whose chunks are stored visible, until its `expires_at`. Gives its id.

        Where `once` has made a file before, that one's id, and nothing is published. Raises KeyReusedError.
        """
        ...

    def get(self, file_id: str) -> FileRecord | None: ...

    def page(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[FileRecord], bool]:
        """The owner's files by age, and whether there are more. `after` need not exist any more."""
        ...

    def read(self, file_id: str, chunks: int) -> Iterator[bytes]:
        """The contents, chunk by chunk. Raises NotFoundError where they are gone."""
        ...

    def slices(self, file_id: str, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes at each (offset, length) of an uploaded file. Raises NotFoundError where they are gone."""
        ...

    def pin(self, file_id: str, batch_id: str, until: float) -> bool:
        """Keep the contents for a batch until then, whatever becomes of the file. False where there is no such file."""
        ...

    def unpin(self, file_id: str, batch_id: str) -> None: ...

    def delete(self, file_id: str) -> bool:
        """Remove a file; contents that a running batch still needs go when it ends. False where there is no such file."""
        ...

    def discard(self, file_id: str) -> None:
        """Forget the chunks of an upload that will not be completed."""
        ...
