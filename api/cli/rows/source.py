"""Tables that come in: CSV and JSON lines, streamed; Parquet stands in a file of its own."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from api.cli.outcome import FaultyInputError, UsageError
from api.cli.rows.columns import Kinds
from api.cli.rows.lines import MOST_LINE_BYTES, lines_of
from api.cli.rows.recipe import Row

MOST_DEPTH = 100
"""Of lists and objects in a cell: nobody has more, and recursion ends somewhere."""

DELIMITERS = ",;\t|"
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""By the ending of a file's name."""


@dataclass(frozen=True)
class Reading:
    """How text is to be read. Without `delimiter`: a tab for .tsv, else the one that the header line has most of."""

    delimiter: str | None = None
    encoding: str = "utf-8"


class Source(Protocol):
    """A table that can be gone through several times."""

    kinds: Kinds
    """What the columns hold, where the format does not say: complete once the rows have been gone through."""

    @property
    def columns(self) -> list[str]:
        """For JSON lines those that have been seen so far."""

    def rows(self) -> Iterator[Row]:
        """From the first on. Raises FaultyInputError naming the place, and FileError."""


def format_of(path: Path, what: str) -> str:
    """Raises UsageError for an ending that we do not know."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UsageError(f"{what} {path}: its ending must be one of {', '.join(FORMATS)}.")
    return found


def open_source(path: Path, reading: Reading) -> Source:
    match format_of(path, "FILE"):
        case "csv":
            return CsvSource(path, reading)
        case "jsonl":
            return JsonlSource(path, reading)
        case _:
            from api.cli.rows.parquet import ParquetSource  # noqa: PLC0415  an extra

            return ParquetSource(path)


class CsvSource:
    """CSV by RFC 4180: a header line, quotes doubled within quotes, line ends within quotes. Every value is text."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path = path
        self._encoding = reading.encoding
        self.kinds = Kinds()
        self.delimiter = reading.delimiter or _delimiter_of(path, reading.encoding)
        csv.field_size_limit(MOST_LINE_BYTES)
        self.columns = next(self._records(), (0, []))[1]
        if not self.columns:
            raise FaultyInputError(f"{path} is empty; its first line must name the columns.")
        check_unique(self.columns, path)

    def rows(self) -> Iterator[Row]:
        records = self._records()
        next(records, None)
        for line, cells in records:
            if len(cells) != len(self.columns):
                raise FaultyInputError(
                    f"{self._path}, line {line}: {len(cells)} fields where the header names {len(self.columns)}."
                    " Is a quote or a delimiter missing or not quoted? --delimiter names another delimiter."
                )
            yield Row(f"{self._path}, line {line}", dict(zip(self.columns, cells, strict=True)))

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Each record and the line on which it begins; blank lines are passed over."""
        reader = csv.reader(lines_of(self._path, self._encoding), delimiter=self.delimiter, strict=True)
        while True:
            begins = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as exc:
                raise FaultyInputError(
                    f"{self._path}, in the record that begins on line {begins}: {exc}. Is a quote not closed?"
                ) from exc
            if cells is None:
                return
            if cells:
                yield begins, cells


def _delimiter_of(path: Path, encoding: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = next(lines_of(path, encoding), "")
    unquoted = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=unquoted.count)


class JsonlSource:
    """JSON lines: an object a line, each with keys of its own. Blank lines are passed over."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path = path
        self._encoding = reading.encoding
        self.kinds = Kinds()

    @property
    def columns(self) -> list[str]:
        return self.kinds.columns

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(lines_of(self._path, self._encoding), 1):
            if not line.strip():
                continue
            place = f"{self._path}, line {number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise FaultyInputError(f"{place}: no JSON: {exc}.") from exc
            if not isinstance(values, dict):
                raise FaultyInputError(f"{place}: a row must be a JSON object, such as {{'text': …}}.")
            check_storable(line, values, place)
            self.kinds.learn(values)
            yield Row(place, values)


def check_storable(line: str, values: dict[str, Any], place: str) -> None:
    """Raises FaultyInputError for what JSON may hold and no output can: better before anything is paid for than after."""
    if "\\u" in line:
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as exc:
            raise FaultyInputError(f"{place}: text that is not Unicode (a lone surrogate).") from exc
        except RecursionError:
            pass  # told below
    if line.count("[") + line.count("{") > MOST_DEPTH and _depth(values) > MOST_DEPTH:
        raise FaultyInputError(f"{place}: lists and objects within each other more than {MOST_DEPTH} deep.")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def check_unique(columns: list[str], path: Path) -> None:
    """Raises FaultyInputError for a name that stands twice."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise FaultyInputError(f"{path}: two columns are named {twice[0]!r}; give each its own name.")
