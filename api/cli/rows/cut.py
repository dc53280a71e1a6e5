"""Where one batch ends and the next begins. Pure."""

from dataclasses import dataclass

MOST_ROWS = 50_000
MOST_BYTES = 200_000_000
"""OpenAI's limits of one batch, which are ours."""


@dataclass
class Cut:
    """Counts lines off: `part_of(size)` is the number, from 1 on, of the batch that the next line goes into."""

    most_rows: int = MOST_ROWS
    most_bytes: int = MOST_BYTES
    parts: int = 0
    _rows: int = 0
    _bytes: int = 0

    def part_of(self, size: int) -> int:
        full = self._rows >= self.most_rows or self._bytes + size > self.most_bytes
        if not self.parts or full:
            self.parts += 1
            self._rows = self._bytes = 0
        self._rows += 1
        self._bytes += size
        return self.parts
