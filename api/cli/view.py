"""A batch as the command line sees it: read from the API's JSON, tolerant of what a server leaves out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from api.cli.words import printable

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True)
class ProviderView:
    """What one provider did for a batch. `cost_usd` is None where a price is unknown."""

    id: str
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = None


@dataclass(frozen=True)
class BatchView:
    id: str
    status: str
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = None
    providers: tuple[ProviderView, ...] = ()
    faults: tuple[str, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int = 0
    ended_at: int | None = None
    expires_at: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def done(self) -> int:
        """Jobs that have their outcome."""
        return self.completed + self.failed

    @property
    def progress(self) -> str:
        """`612 of 1,000 jobs done, 2 of them failed`, or that their number is not known yet."""
        if not self.total:
            return "jobs not counted yet" if not self.ended else "no jobs"
        failed = f", {self.failed:,} of them failed" if self.failed else ""
        return f"{self.done:,} of {self.total:,} jobs done{failed}"


def batch_view(raw: Mapping[str, Any]) -> BatchView:
    """From the API's batch object."""
    counts, usage = _mapping(raw.get("request_counts")), _mapping(raw.get("usage"))
    status = _text(raw.get("status"))
    return BatchView(
        id=_text(raw.get("id")),
        status=status,
        total=whole(counts.get("total")),
        completed=whole(counts.get("completed")),
        failed=whole(counts.get("failed")),
        input_tokens=whole(usage.get("input_tokens")),
        output_tokens=whole(usage.get("output_tokens")),
        cost_usd=money(raw.get("cost_usd")),
        providers=tuple(_provider(_mapping(entry)) for entry in _list(raw.get("providers"))),
        faults=tuple(_fault(_mapping(entry)) for entry in _list(_mapping(raw.get("errors")).get("data"))),
        output_file_id=_text(raw.get("output_file_id")) or None,
        error_file_id=_text(raw.get("error_file_id")) or None,
        created_at=whole(raw.get("created_at")),
        ended_at=whole(raw.get(f"{status}_at")) or None if status in ENDED else None,
        expires_at=whole(raw.get("expires_at")) or None,
    )


def _provider(raw: Mapping[str, Any]) -> ProviderView:
    return ProviderView(
        id=printable(_text(raw.get("id")), 64),
        completed=whole(raw.get("completed")),
        failed=whole(raw.get("failed")),
        input_tokens=whole(raw.get("input_tokens")),
        output_tokens=whole(raw.get("output_tokens")),
        cost_usd=money(raw.get("cost_usd")),
    )


def _fault(raw: Mapping[str, Any]) -> str:
    message = printable(_text(raw.get("message")) or _text(raw.get("code")) or "no reason was given")
    return f"line {raw['line']}: {message}" if isinstance(raw.get("line"), int) else message


def whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def money(value: Any) -> Decimal | None:
    """A decimal string as an amount; None for anything else."""
    try:
        amount = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
