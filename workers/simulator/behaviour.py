"""How one simulated provider behaves: a frozen record, read from the command line and changed over HTTP."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.config import faults_of
from shared.errors import ConfigError

LONGEST_S = 86_400.0
MOST_TOKENS = 100_000

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S)]
Limit = Annotated[int, Field(ge=1)]
ErrorStatus = Annotated[int, Field(ge=400, le=599)]
Outage = Literal["none", "503", "drop", "hang", "401", "429_quota"]

LISTS = ("error_statuses", "models")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OK = 200
SURE = 1.0 + 1e-9
"""Rates add up to at most 1, give or take what floats lose."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rule(_Record):
    """What happens to calls whose last user message (or prompt) `match` finds, whatever the rates say.

    Without an outcome (`status`, `drop`, `hang`, `malformed`) the call is answered, `latency_s` seconds after it came.
    An error, a drop and a hang pass by the limits; answers are subject to them.
    `times` bounds the rule to the first calls of each body, counted since the start or the last reset.
    """

    match: re.Pattern[str]
    status: int | None = None
    latency_s: Seconds | None = None
    times: Limit | None = None
    drop: bool = False
    hang: bool = False
    malformed: bool = False
    retry_after_s: Seconds | None = None

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.status is not None) + self.drop + self.hang + self.malformed > 1:
            raise ValueError("give one of status, drop, hang and malformed, not several")
        if self.status is not None and self.status != OK and not 400 <= self.status <= 599:  # noqa: PLR2004  HTTP's
            raise ValueError(f"status must be 200 or between 400 and 599 (got {self.status})")
        return self


class Behaviour(_Record):
    """One persona's behaviour; seconds throughout. The defaults answer every call at once."""

    latency_s: Seconds = 0.0
    """The median; 0 answers at once."""
    latency_p95_s: Seconds | None = None
    """The 95th percentile of a lognormal distribution; without it every call takes `latency_s`."""
    time_per_output_token_s: Seconds = 0.0
    completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 40
    """The mean of a normal distribution."""
    completion_tokens_spread: Annotated[float, Field(ge=0, le=MOST_TOKENS)] = 10.0
    """Its standard deviation."""
    rpm: Limit | None = None
    tpm: Limit | None = None
    concurrency: Limit | None = None
    capacity: Limit | None = None
    """Calls at once that are answered as fast as one alone; with n times as many each takes n times as long. None: any."""
    error_rate: Rate = 0.0
    error_statuses: tuple[ErrorStatus, ...] = (500, 503)
    drop_rate: Rate = 0.0
    hang_rate: Rate = 0.0
    malformed_rate: Rate = 0.0
    retry_after_s: Seconds | None = None
    """What drawn 429, 503 and 529 answers and the outage `503` ask for."""
    outage: Outage = "none"
    models: tuple[str, ...] | None = None
    """The models known; None: any."""
    api_key: str | None = None
    """The one key that is taken, others are answered 401; None: any, or none."""
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.error_statuses:
            raise ValueError("error_statuses must name at least one status")
        rates = self.error_rate + self.drop_rate + self.hang_rate + self.malformed_rate
        if rates > SURE:
            raise ValueError(
                f"error_rate, drop_rate, hang_rate and malformed_rate add up to {rates:g}, more than 1"
            )
        if self.latency_p95_s is not None and not 0 < self.latency_s <= self.latency_p95_s:
            raise ValueError(
                f"latency_p95_s ({self.latency_p95_s:g}) needs a latency_s between 0 and itself"
                f" (got {self.latency_s:g}); leave it out or null for calls that all take latency_s"
            )
        return self


def changed(behaviour: Behaviour, settings: Mapping[str, Any], where: str) -> Behaviour:
    """`behaviour` with some settings replaced. Raises ConfigError with every fault, each beginning with `where`."""
    faults = [_unknown(name, where) for name in settings if name not in Behaviour.model_fields]
    known = {name: value for name, value in settings.items() if name in Behaviour.model_fields}
    try:
        found = Behaviour.model_validate(behaviour.model_dump() | known)
    except ValidationError as exc:
        faults += faults_of(exc, where)
    if faults:
        raise ConfigError(faults)
    return found


def _unknown(name: str, where: str) -> str:
    near = difflib.get_close_matches(name, Behaviour.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(Behaviour.model_fields)}"
    return f"{where}: {name}: no such setting; {hint}"


def read_json(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises ConfigError."""
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise ConfigError([f"{where}: not JSON: {exc}"]) from exc
    if not isinstance(found, dict):
        raise ConfigError([f"{where}: must be a JSON object of settings"])
    return found
