"""A multipart form with one file, streamed from disk: its length is known and it is never whole in memory."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from api.cli.outcome import FileError, UsageError

_PIECE_BYTES = 256 * 1024


class Multipart:
    """The body of one upload; may be sent several times. `len()` is its Content-Length.

    `on_sent(bytes)` hears how much of the file is on its way. Raises UsageError where the file is none of a fixed length.
    """

    def __init__(
        self, path: Path, fields: Mapping[str, str], on_sent: Callable[[int], None] = lambda _: None
    ) -> None:
        if not path.is_file():
            raise UsageError(f"{path}: must be a regular file; write what comes from a pipe to a file first.")
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.size = path.stat().st_size
        self._path = path
        self._on_sent = on_sent
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        self._head = (
            f'{head}--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{_quoted(path.name)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("utf-8", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        return len(self._head) + self.size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        """Raises FileError where the file cannot be read, or has become shorter."""
        yield self._head
        left = self.size
        try:
            with self._path.open("rb") as file:
                while left:
                    piece = file.read(min(left, _PIECE_BYTES))
                    if not piece:
                        raise FileError(f"{self._path}: the file became shorter while it was sent.")
                    left -= len(piece)
                    yield piece
                    self._on_sent(self.size - left)
        except OSError as exc:
            raise FileError(f"{self._path}: {os.strerror(exc.errno or 0)}") from exc
        yield self._tail


def _quoted(name: str) -> str:
    """As browsers write a file's name into a form."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
