"""The process' settings: read from the environment once, validated whole, frozen, passed down."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from shared.errors import ConfigError
from shared.redis_settings import RedisSettings

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(RedisSettings):
    """Every environment variable this project reads, with those of RedisSettings. The alias is the variable's name."""

    # where things listen and live
    server_host: str = Field("127.0.0.1", alias="SERVER_HOST")
    server_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, alias="SERVER_PORT")
    llm_edge_config: Path | None = Field(None, alias="LLM_EDGE_CONFIG")
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,32}$")] = Field(
        "le", alias="LLM_EDGE_KEY_PREFIX"
    )

    # who may call, and who may look
    api_keys: str | None = Field(None, alias="LLM_EDGE_API_KEYS", repr=False)
    api_keys_file: Path | None = Field(None, alias="LLM_EDGE_API_KEYS_FILE")
    metrics_host: str | None = Field(None, alias="METRICS_HOST")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(9464, alias="METRICS_PORT")
    metrics_token: Annotated[str, Field(pattern=r"^[\x21-\x7e]{8,}$")] | None = Field(
        None, alias="METRICS_TOKEN", repr=False
    )

    api_grace_s: Annotated[float, Field(gt=0, le=86_400)] = Field(20.0, alias="LLM_EDGE_API_GRACE_S")

    # the fleet
    pool: Literal["gevent", "threads"] = Field("gevent", alias="LLM_EDGE_POOL")
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = Field(64, alias="LLM_EDGE_CONCURRENCY")
    shard_size: Annotated[int, Field(ge=1, le=1000)] = Field(50, alias="LLM_EDGE_SHARD_SIZE")
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = Field(15.0, alias="LLM_EDGE_LEASE_S")
    hint_visibility_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        3600.0, alias="LLM_EDGE_HINT_VISIBILITY_S"
    )
    tick_s: Annotated[float, Field(ge=0.02, le=60)] = Field(0.5, alias="LLM_EDGE_TICK_S")

    # bounds
    max_file_bytes: Annotated[int, Field(ge=1)] = Field(200 * 1024 * 1024, alias="LLM_EDGE_MAX_FILE_BYTES")
    max_batch_jobs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(50_000, alias="LLM_EDGE_MAX_BATCH_JOBS")
    answer_bytes: Annotated[int, Field(ge=1)] = Field(2048, alias="LLM_EDGE_ANSWER_BYTES")
    retention_s: Annotated[float, Field(ge=60)] = Field(7 * 86400.0, alias="LLM_EDGE_RETENTION_S")

    # lone jobs
    wait_s: Annotated[float, Field(gt=0, le=86_400)] = Field(540.0, alias="LLM_EDGE_WAIT_S")
    job_window_s: Annotated[float, Field(ge=1, le=7 * 86400)] = Field(86400.0, alias="LLM_EDGE_JOB_WINDOW_S")
    job_retention_s: Annotated[float, Field(ge=60)] = Field(86400.0, alias="LLM_EDGE_JOB_RETENTION_S")
    delivered_retention_s: Annotated[float, Field(ge=60)] = Field(
        900.0, alias="LLM_EDGE_DELIVERED_RETENTION_S"
    )

    idempotency_s: Annotated[int, Field(ge=60, le=7 * 86400)] = Field(86400, alias="LLM_EDGE_IDEMPOTENCY_S")
    # what a failover of Redis may lose
    wait_replicas: Annotated[int, Field(ge=0, le=10)] = Field(0, alias="LLM_EDGE_WAIT_REPLICAS")
    wait_replicas_s: Annotated[float, Field(gt=0, le=60)] = Field(0.4, alias="LLM_EDGE_WAIT_REPLICAS_S")

    # what is said
    environment: str = Field("development", alias="ENVIRONMENT")
    log_level: str = Field("info", alias="LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", alias="LOG_FORMAT")
    log_file: Path | None = Field(None, alias="LOG_FILE")
    log_max_chars: Annotated[int, Field(ge=100)] = Field(2000, alias="LOG_MAX_CHARS")
    log_redact_ip: bool = Field(False, alias="LOG_REDACT_IP")

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
        private = any(
            word in path.lower() for word in ("key", "token", "url", "endpoint", "password", "username")
        )
        got = "" if private else _shown(fault.get("input"))
        lines.append(f"{where}: {path}: {fault['msg']}{got}")
    return lines


def _shown(value: Any) -> str:
    return f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
