"""The ledger's records, from what its scripts and hashes answer. Pure."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from shared.errors import NewerRecordError
from shared.ids import job_id
from shared.jobs import (
    Batch,
    BatchSpec,
    BatchStatus,
    Fault,
    Finished,
    History,
    Moments,
    Progress,
    Slip,
    Suspect,
    Tally,
    Usage,
    Waiting,
)
from shared.versions import VERSION

_PLACE = struct.Struct(">II")
_NONE = History()

_spec = msgspec.json.Decoder(BatchSpec)
_history = msgspec.json.Decoder(History)
_faults = msgspec.json.Decoder(tuple[Fault, ...])


class _FinishReply(msgspec.Struct):
    accepted: str
    segments: str
    open: bool
    hungry: bool


_reply = msgspec.msgpack.Decoder(_FinishReply)


def spec_of(raw: bytes) -> BatchSpec:
    return _spec.decode(raw)


def history_of(raw: bytes | None) -> History:
    return _history.decode(raw) if raw else _NONE


def places_of(index: bytes) -> tuple[tuple[int, int], ...]:
    """Of each job the (offset, length) of its line."""
    return tuple(_PLACE.iter_unpack(index))


def progress_of(row: Sequence[Any]) -> Progress:
    groups = [
        Waiting(
            reason=row[i].decode(),
            provider=row[i + 1].decode(),
            since=float(row[i + 2]),
            until=float(row[i + 3]),
            jobs=row[i + 4],
        )
        for i in range(4, len(row), 5)
    ]
    return Progress(
        queued=row[0], running=row[1], retrying=row[2], retry_at=float(row[3]), waiting=tuple(groups)
    )


def read_finished(raw: bytes) -> Finished:
    """The reply of the scripts that finish jobs."""
    reply = _reply.decode(raw)
    return Finished(
        accepted=tuple(flag == "1" for flag in reply.accepted),
        segments=tuple(sorted(int(s) for s in reply.segments.split(",") if s)),
        open=reply.open,
        hungry=reply.hungry,
    )


def suspects_of(row: Sequence[Any]) -> tuple[Suspect, ...]:
    """From (batch, job, recoveries, alone) in turn."""
    rows = (row[i : i + 4] for i in range(0, len(row), 4))
    return tuple(
        Suspect(job_id(text_of(batch), job), recoveries, alone) for batch, job, recoveries, alone in rows
    )


def text_of(raw: Any) -> str:
    """redis-py's replies are bytes here, but typed as either."""
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def slip_of(job: int, place: bytes, history: bytes | None) -> Slip:
    offset, length = _PLACE.unpack(place)
    return Slip(index=int(job), offset=offset, length=length, history=history_of(history))


@contextmanager
def understood(v: bytes | None) -> Iterator[None]:
    """Raises NewerRecordError where a record of a newer version `v` does not decode. One that does is shown."""
    try:
        yield
    except (ValueError, KeyError) as exc:  # msgspec's errors are ValueErrors
        if (met := int(v or 1)) > VERSION:
            raise NewerRecordError(met, VERSION) from exc
        raise


def batch_of(row: dict[bytes, bytes], tallies: dict[bytes, bytes]) -> Batch:
    """Raises NewerRecordError."""
    with understood(row.get(b"v")):
        return _batch_of(row, tallies)


def _batch_of(row: dict[bytes, bytes], tallies: dict[bytes, bytes]) -> Batch:
    def number(field: bytes) -> int:
        return int(row.get(field, 0))

    def moment(field: str) -> int | None:
        value = row.get(field.encode())
        return int(value) if value else None

    return Batch(
        spec=spec_of(row[b"spec"]),
        v=number(b"v") or 1,
        status=BatchStatus(row[b"status"].decode()),
        at=Moments(
            created_at=number(b"created_at"),
            expires_at=number(b"expires_at"),
            **{
                name: moment(name)
                for name in Moments.__struct_fields__
                if name not in {"created_at", "expires_at"}
            },
        ),
        total=number(b"total"),
        completed=number(b"completed"),
        failed=number(b"failed"),
        output_lines=number(b"output_lines"),
        error_lines=number(b"error_lines"),
        output_bytes=number(b"output_bytes"),
        error_bytes=number(b"error_bytes"),
        model=row[b"model"].decode() if b"model" in row else None,
        errors=_faults.decode(row[b"errors"]) if b"errors" in row else (),
        tallies=_tallies(tallies),
    )


def _tallies(row: dict[bytes, bytes]) -> dict[str, Tally]:
    fields: dict[str, dict[str, int]] = {}
    for name, value in row.items():
        provider, field = name.decode().split("|")
        fields.setdefault(provider, {})[field] = int(value)
    return {provider: _tally(found) for provider, found in sorted(fields.items())}


def _tally(found: dict[str, int]) -> Tally:
    def n(field: str) -> Any:
        return found.get(field, 0)

    return Tally(
        completed=n("completed"),
        failed=n("failed"),
        usage=Usage(
            input_tokens=n("in"),
            cached_tokens=n("cached"),
            output_tokens=n("out"),
            reasoning_tokens=n("reasoning"),
        ),
        cost_nanos=n("cost"),
        unpriced=n("unpriced"),
    )
