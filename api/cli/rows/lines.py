"""Text files line by line, with bounded memory, and with the line's number in every complaint."""

import os
from collections.abc import Iterator
from pathlib import Path

from api.cli.outcome import FaultyInputError, FileError

MOST_LINE_BYTES = 64 * 1024 * 1024
_WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_BOM = b"\xef\xbb\xbf"


def lines_of(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The file's lines with their ends; a byte order mark is dropped, and one of UTF-16 is heeded.

    Raises FileError, and FaultyInputError for bytes that are no text in this encoding or a line beyond 64 MiB.
    """
    try:
        with path.open("rb") as file:
            wide = _WIDE.get(file.read(2))
        if wide or not _splits_at_newline(encoding):
            yield from _wide_lines(path, wide or encoding)
        else:
            yield from _narrow_lines(path, encoding)
    except OSError as exc:
        raise FileError(f"{path}: {os.strerror(exc.errno or 0)}") from exc


def _splits_at_newline(encoding: str) -> bool:
    return "a\n".encode(encoding) == b"a\n"


def _narrow_lines(path: Path, encoding: str) -> Iterator[str]:
    """Line by line, so that a byte that is no text is found on its line."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE_BYTES):
            number += 1
            if len(line) == MOST_LINE_BYTES:
                raise FaultyInputError(f"{path}, line {number}: the line has more than 64 MiB.")
            if number == 1:
                line = line.removeprefix(_BOM)
            try:
                yield line.decode(encoding)
            except UnicodeDecodeError as exc:
                raise FaultyInputError(
                    f"{path}, line {number}: byte {exc.start + 1} (0x{line[exc.start]:02x}) is no {encoding} text."
                    " Name the file's encoding, for example --encoding cp1252."
                ) from exc


def _wide_lines(path: Path, encoding: str) -> Iterator[str]:
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield from file
    except UnicodeError as exc:
        raise FaultyInputError(
            f"{path} is no {encoding} text: {exc}. Name the file's encoding with --encoding."
        ) from exc
