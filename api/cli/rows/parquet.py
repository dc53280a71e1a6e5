"""Parquet, in and out, by pyarrow: an extra, `pip install 'llm-edge-agent[parquet]'`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from api.cli.outcome import FaultyInputError, UsageError
from api.cli.rows.columns import OURS, Kind, Kinds
from api.cli.rows.recipe import Row
from api.cli.rows.source import Source, check_unique
from api.cli.rows.values import for_json, is_null, text

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as exc:
    raise UsageError(
        "Parquet needs pyarrow, which is an extra: pip install 'llm-edge-agent[parquet]' (or pip install pyarrow)."
    ) from exc

_BATCH_ROWS = 1000
_TYPES: dict[Kind, Any] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
}


class ParquetSource:
    """Rows as Python values; each remembers its record batch, so that it is written again without loss."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kinds = Kinds()
        self.schema = self._open().schema_arrow
        self.columns: list[str] = list(self.schema.names)
        check_unique(self.columns, path)

    def _open(self) -> Any:
        try:
            return pq.ParquetFile(self._path)
        except (pa.ArrowException, OSError) as exc:
            raise FaultyInputError(f"{self._path} cannot be read as Parquet: {exc}.") from exc

    def rows(self) -> Iterator[Row]:
        number = 0
        with self._open() as file:
            try:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                    for index, values in enumerate(_readable(batch).to_pylist()):
                        number += 1
                        yield Row(f"{self._path}, row {number}", values, (batch, index))
            except (pa.ArrowException, OSError, ValueError) as exc:
                raise FaultyInputError(f"{self._path}, after row {number}: {exc}.") from exc


def _readable(batch: Any) -> Any:
    """Nanoseconds, which Python's own types cannot hold, as text."""
    fine = [column.cast(pa.string()) if _in_nanoseconds(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(fine, names=batch.schema.names)


def _in_nanoseconds(kind: Any) -> bool:
    timed = pa.types.is_timestamp(kind) or pa.types.is_time(kind)
    return timed and getattr(kind, "unit", "") == "ns"


class ParquetSink:
    """Columns that come from Parquet keep their types; those of JSON lines get what they hold; those of CSV are text."""

    def __init__(self, path: Path, source: Source, prefix: str) -> None:
        self._ours = pa.schema([pa.field(prefix + name, _TYPES[kind]) for name, kind in OURS.items()])
        if isinstance(source, ParquetSource):
            theirs = source.schema
        else:
            theirs = pa.schema([pa.field(name, _TYPES[source.kinds.of(name)]) for name in source.columns])
        self._theirs = theirs
        self._schema = pa.schema([*theirs, *self._ours], metadata=theirs.metadata)
        self._writer = pq.ParquetWriter(path, self._schema)
        self._held: list[tuple[Row, Mapping[str, Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, row: Row, ours: Mapping[str, Any]) -> None:
        other_batch = (
            self._held and row.origin is not None and self._held[-1][0].origin[0] is not row.origin[0]
        )
        if other_batch or len(self._held) >= _BATCH_ROWS:
            self._flush()
        self._held.append((row, ours))

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        joined = pa.RecordBatch.from_pylist([dict(ours) for _, ours in self._held], schema=self._ours)
        rows = self._theirs_of([row for row, _ in self._held])
        whole = pa.Table.from_arrays([*rows.columns, *joined.columns], schema=self._schema)
        self._writer.write_table(whole)
        self._held = []

    def _theirs_of(self, rows: list[Row]) -> Any:
        if rows[0].origin is not None:
            batch, first = rows[0].origin
            return batch.slice(first, len(rows))
        fitted = [
            {field.name: _fit(row.values.get(field.name), field.type) for field in self._theirs}
            for row in rows
        ]
        return pa.RecordBatch.from_pylist(fitted, schema=self._theirs)


def _fit(value: Any, kind: Any) -> Any:
    if is_null(value):
        return None
    return text(for_json(value)) if kind == pa.string() else value
