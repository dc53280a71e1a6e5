"""Tables that go out, whole or not at all."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO

from api.cli.outcome import FileError
from api.cli.rows.columns import OURS
from api.cli.rows.recipe import Row
from api.cli.rows.source import CsvSource, Source, format_of
from api.cli.rows.values import for_json, text


class Sink(Protocol):
    def write(self, row: Row, ours: Mapping[str, Any]) -> None:
        """A row as it came in, and the cells that are joined to it."""

    def close(self) -> None:
        """All rows have been written. Not called where something went wrong."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Another name in the same folder, which becomes `path` at the end, once its bytes are on the disk. Raises FileError."""
    real = path.resolve()  # through a link, which stays one
    fresh = real.with_name(f".{real.name}.{os.getpid()}.part")
    try:
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(real)
    except OSError as exc:
        raise FileError(f"{path} could not be written: {exc.strerror or exc}.") from exc
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def check_format(target: Path) -> None:
    """Raises UsageError, before anything is paid for, where the format needs what is not installed."""
    if format_of(target, "-o") == "parquet":
        import_module("api.cli.rows.parquet")


@contextmanager
def open_sink(path: Path, target: Path, source: Source, prefix: str) -> Iterator[Sink]:
    """Writes to `path` in the format that the ending of `target` names."""
    names = [prefix + name for name in OURS]
    match format_of(target, "-o"):
        case "csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                yield CsvSink(file, [*source.columns, *names], _delimiter(target, source))
        case "jsonl":
            with path.open("w", encoding="utf-8", newline="\n") as file:
                yield JsonlSink(file)
        case _:
            from api.cli.rows.parquet import ParquetSink  # noqa: PLC0415  an extra

            with ParquetSink(path, source, prefix) as sink:
                yield sink


def _delimiter(target: Path, source: Source) -> str:
    if target.suffix.lower() == ".tsv":
        return "\t"
    return source.delimiter if isinstance(source, CsvSource) and source.delimiter != "\t" else ","


class _UnixLines:
    """csv.writer quotes the characters of its line end only: it is given both, and the first is taken off again."""

    end = "\r\n"

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, record: str) -> int:
        return self._file.write(record.removesuffix(self.end) + "\n")


class CsvSink:
    """Null is an empty field; lists and records are JSON."""

    def __init__(self, file: TextIO, columns: list[str], delimiter: str) -> None:
        self._columns = columns
        self._writer = csv.writer(_UnixLines(file), delimiter=delimiter, lineterminator=_UnixLines.end)
        self._writer.writerow(columns)

    def write(self, row: Row, ours: Mapping[str, Any]) -> None:
        cells = {**row.values, **ours}
        self._writer.writerow([text(cells.get(name)) for name in self._columns])

    def close(self) -> None:
        """Nothing is held back."""


class JsonlSink:
    """The row's own keys, then ours."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: Row, ours: Mapping[str, Any]) -> None:
        cells = {name: for_json(value) for name, value in (*row.values.items(), *ours.items())}
        self._file.write(json.dumps(cells, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Nothing is held back."""
