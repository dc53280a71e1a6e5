"""The fleet's providers file: which providers there are, what they serve, at what price. YAML or TOML."""

import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shared import strict_yaml
from shared.config import Settings, faults_of
from shared.errors import ConfigError

DEFAULT_FILES = ("providers.yaml", "providers.yml", "providers.toml")

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
DottedPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]

Capability = Literal["tools", "json_object", "json_schema", "vision", "audio", "files", "logprobs", "n"]
"""What a request may need; `shared/needs.py` tells which fields of a body ask for it."""

STRATEGIES = ("round_robin", "failover", "least_latency", "cost_optimized")
"""The names of those that come with it; `workers/strategies` has the functions."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timeouts(_Record):
    """Bounds on one call, in seconds: connecting, silence between bytes, the whole call."""

    connect_s: Positive = 5.0
    read_s: Positive = 120.0
    total_s: Positive = 600.0


class Price(_Record):
    """US dollars per 1,000 tokens. `output` defaults to `input`."""

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)] | None = None

    @property
    def out(self) -> Decimal:
        return self.input if self.output is None else self.output


class Ceilings(_Record):
    """Requests and tokens a minute, calls at a time; each None: any number."""

    rpm: Annotated[int, Field(ge=1)] | None = None
    tpm: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None


class Limits(Ceilings):
    """What a provider may be asked at most, by the whole fleet. `models`: what may be asked of some models besides, by name."""

    models: dict[str, Ceilings] = Field(default_factory=dict)

    @property
    def counts_tokens(self) -> bool:
        return self.tpm is not None or any(own.tpm is not None for own in self.models.values())


class Provider(_Record):
    """One upstream. Its condition (health, breaker, limits in use) lives in Redis, never here.

    `max_tokens` is the largest answer it gives, `context_tokens` what input and answer may be together, `capabilities` what
    it can do of what requests may need; each None: whatever is asked.
    """

    id: Name
    name: str = ""
    kind: Literal["openai"] = "openai"
    endpoint: str
    api_key_env: str | None = None
    api_key_file: Path | None = None
    priority: int = 1
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    cost_per_1k_tokens: Annotated[Decimal, Field(ge=0)] | None = None
    prices: dict[str, Price] = Field(default_factory=dict)
    limits: Limits = Limits()
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    capabilities: frozenset[Capability] | None = None
    enabled: bool = True
    models: dict[str, str] = Field(default_factory=lambda: {"*": "*"}, min_length=1)
    timeouts: Timeouts = Timeouts()
    max_response_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    simulated: bool = False

    @field_validator("endpoint")
    @classmethod
    def _http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL with a host")
        if parts.username or parts.password:
            raise ValueError("must not carry credentials; name them with api_key_env or api_key_file")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_key(self) -> "Provider":
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self

    @model_validator(mode="after")
    def _limits_what_it_serves(self) -> "Provider":
        known = {*self.models, *self.models.values()}
        wrong = [name for name in self.limits.models if name == "*" or not known.intersection({name, "*"})]
        if wrong:
            raise ValueError(
                f"limits.models: it serves no {', '.join(wrong)}; name each model as it is asked for, or as the provider does"
            )
        return self

    def model_for(self, asked: str) -> str | None:
        """The provider's own name for the model asked for; None where it does not serve it."""
        if asked in self.models:
            return self.models[asked]
        if "*" in self.models:
            passed = self.models["*"]
            return asked if passed == "*" else passed
        return None

    def limited_as(self, asked: str) -> str | None:
        """By which name the model asked for has limits of its own: that one, else the provider's."""
        names = (asked, self.model_for(asked)) if self.limits.models else ()
        return next((name for name in names if name in self.limits.models), None)

    def api_key(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The key itself, read when it is needed and never kept in a record. Raises ConfigError where it is missing."""
        if self.api_key_env:
            key = (os.environ if environ is None else environ).get(self.api_key_env, "").strip()
            if not key:
                raise ConfigError(
                    [f"provider {self.id}: the environment variable {self.api_key_env} is not set"]
                )
            return key
        if self.api_key_file:
            try:
                return self.api_key_file.read_text(encoding="utf-8").strip()
            except OSError as exc:
                raise ConfigError(
                    [f"provider {self.id}: api_key_file: {exc.strerror}: {self.api_key_file}"]
                ) from exc
        return None


class Routing(_Record):
    """`strategies` are the user's own, name -> `package.module:function`; `strategy` is one of them or of STRATEGIES.

    `slow_start_s`: for so long after an outage failover gives a provider back its jobs bit by bit.
    """

    strategies: dict[Name, DottedPath] = Field(default_factory=dict)
    strategy: str = "round_robin"
    slow_start_s: Annotated[float, Field(ge=0)] = 30.0

    @property
    def names(self) -> list[str]:
        """All strategies that may be asked for."""
        return [*STRATEGIES, *self.strategies]

    @field_validator("strategies")
    @classmethod
    def _own_names(cls, own: dict[str, str]) -> dict[str, str]:
        if taken := sorted(set(own).intersection(STRATEGIES)):
            raise ValueError(f"{', '.join(taken)} comes with it; give your own another name")
        return own

    @field_validator("strategy")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        own = info.data.get("strategies")
        if own is not None and name not in STRATEGIES and name not in own:  # None: a fault of its own
            known = ", ".join([*STRATEGIES, *own])
            raise ValueError(f"no such strategy; there are: {known}. Your own is named in routing.strategies")
        return name


class Retry(_Record):
    """The back-off of the n-th retry is `min(initial x multiplier^(n-1), max)`: 0.1, 0.2, 0.4 s by default.

    `jitter` adds up to that share of it by chance (0.2 is a fifth).
    """

    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    initial_backoff_s: Annotated[float, Field(ge=0)] = 0.1
    max_backoff_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    backoff_multiplier: Annotated[float, Field(ge=1)] = 2.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0


class Breaker(_Record):
    """The circuit breakers' numbers, of all providers alike; times in seconds.

    `failure_threshold` failures in a row open it for `reset_timeout_s`, then up to `half_open_permits` probes go out at a
    time, each for at most `probe_lease_s`; `success_threshold` successes in a row close it, one failure opens it again.

    Beyond that, all off by default: with `failure_rate` (0.5 is half), it also opens where that share of at least
    `minimum_calls` calls failed within `window_s`; a call longer than `slow_call_s` counts as a failure; each opening in a
    row lasts `reset_multiplier` times longer, up to `max_reset_timeout_s`, and up to `jitter` (0.2 is a fifth) longer by
    chance. `per_model` keeps a breaker for each of a provider's models. A provider that is out of service (its key refused,
    nothing left to spend) is tried by one job every `out_of_service_probe_s`.
    """

    failure_threshold: Annotated[int, Field(ge=1)] = 5
    reset_timeout_s: Positive = 30.0
    success_threshold: Annotated[int, Field(ge=1)] = 2
    half_open_permits: Annotated[int, Field(ge=1, le=1000)] = 2
    probe_lease_s: Positive = 30.0
    failure_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    minimum_calls: Annotated[int, Field(ge=1)] = 20
    window_s: Positive = 60.0
    slow_call_s: Positive | None = None
    reset_multiplier: Annotated[float, Field(ge=1, le=10)] = 1.0
    max_reset_timeout_s: Positive = 300.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    per_model: bool = False
    out_of_service_probe_s: Positive = 300.0


class Quota(_Record):
    """What an owner may spend at most, in US dollars, in a calendar month or day (UTC) or in all."""

    max_cost: Annotated[Decimal, Field(gt=0, le=1_000_000)]
    per: Literal["day", "month", "total"] = "month"


EVERYBODY = "*"
"""Whose quota is that of every owner who has none of his own; each has it for himself."""

Owner = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,39})$")]


class Catalogue(_Record):
    """The whole providers file, validated.

    `owners`: name -> quota; that of `"*"` is every other owner's, for each of them.
    `adaptive_concurrency`: a provider without a limit for calls at a time gets, after 429s and timeouts, as many as it bears.
    """

    providers: tuple[Provider, ...]
    routing: Routing = Routing()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    adaptive_concurrency: bool = True
    owners: dict[Owner, Quota] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct(self) -> "Catalogue":
        if not self.providers:
            raise ValueError("providers: at least 1 is needed")
        ids = [p.id for p in self.providers]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"provider ids must be distinct; used twice: {', '.join(twice)}")
        return self

    @cached_property
    def goes_by_size(self) -> bool:
        """Whether some provider takes requests or answers up to a size only, or so many tokens a minute."""
        return any(
            (p.context_tokens, p.max_tokens) != (None, None) or p.limits.counts_tokens for p in self.providers
        )

    @cached_property
    def goes_by_needs(self) -> bool:
        """Whether some provider cannot do everything."""
        return any(p.capabilities is not None for p in self.providers)

    def serves(self, model: str) -> bool:
        """Whether any enabled provider takes this model name."""
        return any(p.enabled and p.model_for(model) is not None for p in self.providers)

    @property
    def model_names(self) -> list[str]:
        """Names clients may ask for, sorted, wildcards left out."""
        return sorted({m for p in self.providers if p.enabled for m in p.models if m != "*"})


def find_file(settings: Settings, folder: Path | None = None) -> Path | None:
    """`LLM_EDGE_CONFIG`, else `providers.yaml` (or .yml, .toml) in `folder` (default: the current one), else None."""
    if settings.llm_edge_config is not None:
        return settings.llm_edge_config
    base = Path() if folder is None else folder
    return next((base / name for name in DEFAULT_FILES if (base / name).is_file()), None)


def load_catalogue(path: Path) -> Catalogue:
    """The providers file at `path`. Raises ConfigError with every fault at once."""
    try:
        contents = path.read_bytes()
    except OSError as exc:
        raise ConfigError([f"{path}: {exc.strerror}"]) from exc
    return parse_catalogue(contents, path)


def parse_catalogue(contents: bytes, path: Path) -> Catalogue:
    """What stands in the providers file of that name: TOML where it ends so, else YAML. Raises ConfigError, as above."""
    raw = _parsed(contents, path)
    if not isinstance(raw, dict):
        raise ConfigError([f"{path}: must be a mapping with the key `providers`"])
    try:
        return Catalogue.model_validate(raw)
    except ValidationError as exc:
        raise ConfigError(faults_of(exc, str(path))) from exc


def fleet_path(settings: Settings, folder: Path | None = None) -> Path:
    """Where the providers file lies that this process is to use. Raises ConfigError where there is none."""
    path = find_file(settings, folder)
    if path is None:
        raise ConfigError(
            [
                (
                    "no providers file: set LLM_EDGE_CONFIG, write ./providers.yaml (`llm-edge init` does it from the keys in"
                    " the environment), or run `llm-edge up`, which brings simulated providers"
                )
            ]
        )
    return path


def _parsed(contents: bytes, path: Path) -> Any:
    try:
        text = contents.decode()
        return tomllib.loads(text) if path.suffix == ".toml" else strict_yaml.parse(text, str(path))
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{path}: not UTF-8: {exc.reason} at byte {exc.start}"]) from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: TOML's own, and a date of YAML's that is none
        raise ConfigError([f"{path}: {' '.join(str(exc).split())}"]) from exc
    except RecursionError as exc:
        raise ConfigError([f"{path}: nested too deeply"]) from exc
