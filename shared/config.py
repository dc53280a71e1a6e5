"""The process' settings: read from the environment once, validated whole, frozen, passed down."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseModel):
    """Every environment variable this project reads. The alias is the variable's name."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    # where things listen and live
    server_host: str = Field("127.0.0.1", alias="SERVER_HOST")
    server_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, alias="SERVER_PORT")
    redis_url: str = Field("redis://127.0.0.1:6379/0", alias="REDIS_URL")
    broker_url: str | None = Field(None, alias="BROKER_URL")
    llm_edge_config: Path | None = Field(None, alias="LLM_EDGE_CONFIG")
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,32}$")] = Field(
        "le", alias="LLM_EDGE_KEY_PREFIX"
    )

    # the fleet
    pool: Literal["gevent", "threads"] = Field("gevent", alias="LLM_EDGE_POOL")
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = Field(64, alias="LLM_EDGE_CONCURRENCY")
    shard_size: Annotated[int, Field(ge=1, le=1000)] = Field(50, alias="LLM_EDGE_SHARD_SIZE")
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = Field(15.0, alias="LLM_EDGE_LEASE_S")
    tick_s: Annotated[float, Field(ge=0.02, le=60)] = Field(0.5, alias="LLM_EDGE_TICK_S")

    # bounds
    max_file_bytes: Annotated[int, Field(ge=1)] = Field(200 * 1024 * 1024, alias="LLM_EDGE_MAX_FILE_BYTES")
    max_batch_jobs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(50_000, alias="LLM_EDGE_MAX_BATCH_JOBS")
    retention_s: Annotated[float, Field(ge=60)] = Field(7 * 86400.0, alias="LLM_EDGE_RETENTION_S")

    # lone jobs
    wait_s: Annotated[float, Field(gt=0, le=86_400)] = Field(540.0, alias="LLM_EDGE_WAIT_S")
    job_window_s: Annotated[float, Field(ge=1, le=7 * 86400)] = Field(86400.0, alias="LLM_EDGE_JOB_WINDOW_S")
    job_retention_s: Annotated[float, Field(ge=60)] = Field(86400.0, alias="LLM_EDGE_JOB_RETENTION_S")
    delivered_retention_s: Annotated[float, Field(ge=60)] = Field(
        900.0, alias="LLM_EDGE_DELIVERED_RETENTION_S"
    )

    # what is said
    environment: str = Field("development", alias="ENVIRONMENT")
    log_level: str = Field("info", alias="LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", alias="LOG_FORMAT")
    log_file: Path | None = Field(None, alias="LOG_FILE")
    log_max_chars: Annotated[int, Field(ge=100)] = Field(2000, alias="LOG_MAX_CHARS")
    log_redact_ip: bool = Field(False, alias="LOG_REDACT_IP")

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return url

    @property
    def hints_url(self) -> str:
        """Where Celery's messages travel: `BROKER_URL`, else the ledger's own Redis."""
        if self.broker_url:
            return self.broker_url
        return self.redis_url.replace("unix://", "redis+socket://", 1)

    @property
    def loopback_only(self) -> bool:
        return self.server_host in LOOPBACK


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ` (default: the process' environment).

    An empty variable counts as absent. Raises ConfigError naming every faulty variable at once.
    """
    source = os.environ if environ is None else environ
    try:
        return Settings.model_validate({k: v for k, v in source.items() if v != ""}, by_name=False)
    except ValidationError as exc:
        raise ConfigError(faults_of(exc, "environment")) from exc


def faults_of(exc: ValidationError, where: str) -> list[str]:
    """One line a fault: `where: path: what is wrong (got ...)`. Values of secrets are never echoed."""
    lines = []
    for fault in exc.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"]) or "(whole)"
        private = any(word in path.lower() for word in ("key", "url", "endpoint"))
        got = "" if private else _shown(fault.get("input"))
        lines.append(f"{where}: {path}: {fault['msg']}{got}")
    return lines


def _shown(value: Any) -> str:
    return f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
