"""The HTTP faces of files and batches: OpenAI's objects, field by field, with our few extensions at the end."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from api.explain_schema import WaitingObject
from shared.errors import RequestError
from shared.files import FileRecord
from shared.jobs import Batch, Tally
from shared.lines import ENDPOINTS
from shared.money import format_usd, from_nanos
from shared.routing_asked import RoutingAsked

M = TypeVar("M", bound=BaseModel)

MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 2_592_000
MAX_WINDOW_S = 7 * 86400
MOST_COST = 1_000_000
_WINDOW = re.compile(r"([1-9]\d{0,5})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, record: FileRecord) -> "FileObject":
        return cls(
            id=record.id,
            bytes=record.bytes,
            created_at=record.created_at,
            expires_at=record.expires_at,
            filename=record.filename,
            purpose=record.purpose,
        )


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ExpiresAfter(BaseModel):
    """When a file is to expire, counted from its creation."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)]


class RoutingWish(BaseModel):
    """Extension: how the jobs of a batch that do not say otherwise are routed (`shared.routing_asked`)."""

    model_config = ConfigDict(extra="forbid")

    strategy: str | None = None
    providers: list[str] | None = None
    models: list[str] | None = None

    def asked(self) -> RoutingAsked:
        return RoutingAsked(
            strategy=self.strategy,
            providers=None if self.providers is None else tuple(self.providers),
            models=None if self.models is None else tuple(self.models),
        )


class BatchCreate(BaseModel):
    """The body of `POST /v1/batches`. `completion_window`: OpenAI's `24h`, or any number of s, m, h or d up to `7d`.

    Extensions: `routing`, and `max_cost`, the US dollars that it may cost at most (a number, or a text such as "2.50").
    """

    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None
    routing: RoutingWish | None = None
    max_cost: Annotated[Decimal, Field(gt=0, le=MOST_COST, max_digits=16, decimal_places=9)] | None = None

    @field_validator("endpoint")
    @classmethod
    def _known_endpoint(cls, value: str) -> str:
        if value not in ENDPOINTS:
            raise ValueError(f"must be one of {', '.join(ENDPOINTS)}")
        return value

    @field_validator("completion_window")
    @classmethod
    def _known_window(cls, value: str) -> str:
        window_s(value)
        return value

    @field_validator("metadata")
    @classmethod
    def _bounded_metadata(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is not None:
            if len(value) > 16:  # noqa: PLR2004  OpenAI's limits
                raise ValueError("may have at most 16 pairs")
            if any(len(k) > 64 or len(v) > 512 for k, v in value.items()):  # noqa: PLR2004
                raise ValueError("keys may have at most 64 characters, values at most 512")
        return value


def window_s(text: str) -> int:
    """Seconds of a completion window such as `24h`. Raises ValueError."""
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 1 <= seconds <= MAX_WINDOW_S:
        raise ValueError("must be '24h', or a number followed by s, m, h or d, up to '7d'")
    return seconds


class BatchFault(BaseModel):
    code: str | None
    message: str | None
    param: str | None
    line: int | None


class BatchFaults(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchFault]


class Counts(BaseModel):
    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    cached_tokens: int


class OutputDetails(BaseModel):
    reasoning_tokens: int


class BatchUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ProviderShare(BaseModel):
    """Extension: what one provider did for the batch. `cost_usd` is null where a price is unknown."""

    id: str
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost_usd: str | None

    @classmethod
    def of(cls, provider_id: str, tally: Tally) -> "ProviderShare":
        return cls(
            id=provider_id,
            completed=tally.completed,
            failed=tally.failed,
            input_tokens=tally.usage.input_tokens,
            output_tokens=tally.usage.output_tokens,
            cost_usd=None if tally.unpriced else format_usd(from_nanos(tally.cost_nanos)),
        )


BatchState = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchObject(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: BatchState
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    usage: BatchUsage
    metadata: dict[str, str] | None
    # extensions
    providers: list[ProviderShare]
    cost_usd: str | None
    max_cost: str | None
    routing: RoutingWish | None
    waiting: list[WaitingObject] | None
    """Jobs that wait for a reason; null in lists."""

    @classmethod
    def of(cls, batch: Batch, waiting: list[WaitingObject] | None = None) -> "BatchObject":
        spec, done = batch.spec, batch.status.terminal
        return cls(
            id=spec.id,
            endpoint=spec.endpoint,
            model=batch.model,
            errors=_faults(batch),
            input_file_id=spec.input_file_id,
            completion_window=spec.completion_window,
            status=_state(batch.status.value),
            output_file_id=spec.output_file_id if done and batch.output_lines else None,
            error_file_id=spec.error_file_id if done and batch.error_lines else None,
            **{name: getattr(batch.at, name) for name in batch.at.__struct_fields__},
            request_counts=Counts(total=batch.total, completed=batch.completed, failed=batch.failed),
            usage=_usage(batch),
            metadata=spec.metadata,
            providers=[ProviderShare.of(name, tally) for name, tally in batch.tallies.items()],
            cost_usd=_cost(batch),
            max_cost=None if spec.max_cost_nanos is None else format_usd(from_nanos(spec.max_cost_nanos)),
            routing=None if spec.routing is None else RoutingWish(**msgspec.structs.asdict(spec.routing)),
            waiting=waiting,
        )


def _state(value: str) -> BatchState:
    states: tuple[BatchState, ...] = get_args(BatchState)
    return states[states.index(cast("BatchState", value))]


def _faults(batch: Batch) -> BatchFaults | None:
    if not batch.errors:
        return None
    return BatchFaults(
        data=[BatchFault(code=f.code, message=f.message, param=f.param, line=f.line) for f in batch.errors]
    )


def _usage(batch: Batch) -> BatchUsage:
    used = batch.usage
    return BatchUsage(
        input_tokens=used.input_tokens,
        input_tokens_details=InputDetails(cached_tokens=used.cached_tokens),
        output_tokens=used.output_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=used.reasoning_tokens),
        total_tokens=used.input_tokens + used.output_tokens,
    )


def _cost(batch: Batch) -> str | None:
    if any(tally.unpriced for tally in batch.tallies.values()):
        return None
    return format_usd(from_nanos(sum(tally.cost_nanos for tally in batch.tallies.values())))


class BatchList(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    error: ErrorDetail


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    version: str


class Readiness(BaseModel):
    """All but `status` is null for those who may not look at the fleet."""

    status: Literal["ready", "not_ready"]
    redis: str | None
    broker: Literal["ok", "away"] | None = Field(
        None, description="`away`: what was accepted waits; null where it is the same server as the ledger"
    )
    workers: int | None
    room: Literal["ok", "no_submits", "no_calls", "unknown"] | None = Field(
        "unknown",
        description="What there is memory for: everything, only what was accepted, or only what was begun",
    )


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request cannot be served as it stands"},
    503: {"model": ErrorEnvelope, "description": "Not now; see Retry-After"},
}


def parse(model: type[M], raw: Any) -> M:
    """`raw` as a `model`. Raises RequestError that names the first faulty parameter and what it must be."""
    if not isinstance(raw, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    try:
        return model.model_validate(raw)
    except ValidationError as exc:
        fault = exc.errors(include_url=False)[0]
        param = ".".join(str(part)[:100] for part in fault["loc"]) or None
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "model_type":
            message = "must be an object"
        if fault["type"] == "missing":
            raise RequestError(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            ) from exc
        if fault["type"] == "extra_forbidden":
            raise RequestError(
                f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter"
            ) from exc
        raise RequestError(f"Invalid '{param}': {message}.", param=param, code="invalid_value") from exc
