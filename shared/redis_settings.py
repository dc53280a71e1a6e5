"""The settings that say where Redis is: one set of variables for the ledger and for Celery's messages."""

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.redis_url import (
    NOBODY,
    SCHEMES,
    TLS_SCHEMES,
    Credentials,
    RedisServer,
    Tls,
    Verify,
    parse_redis_url,
    scheme_of,
)


class RedisSettings(BaseModel):
    """Use `redis` and `broker`, which have it all; the rest is what they are made of."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    redis_url: str = Field("redis://127.0.0.1:6379/0", alias="REDIS_URL", repr=False)
    broker_url: str | None = Field(None, alias="BROKER_URL", repr=False)
    redis_username: str | None = Field(None, alias="REDIS_USERNAME", repr=False)
    redis_password: str | None = Field(None, alias="REDIS_PASSWORD", repr=False)
    redis_password_file: Path | None = Field(None, alias="REDIS_PASSWORD_FILE")
    redis_tls_ca: Path | None = Field(None, alias="REDIS_TLS_CA")
    redis_tls_cert: Path | None = Field(None, alias="REDIS_TLS_CERT")
    redis_tls_key: Path | None = Field(None, alias="REDIS_TLS_KEY")
    redis_tls_verify: Verify = Field("full", alias="REDIS_TLS_VERIFY")
    sentinel_username: str | None = Field(None, alias="REDIS_SENTINEL_USERNAME", repr=False)
    sentinel_password: str | None = Field(None, alias="REDIS_SENTINEL_PASSWORD", repr=False)
    sentinel_password_file: Path | None = Field(None, alias="REDIS_SENTINEL_PASSWORD_FILE")

    @field_validator("redis_url")
    @classmethod
    def _a_redis(cls, url: str) -> str:
        parse_redis_url(url)
        return url

    @field_validator("broker_url")
    @classmethod
    def _a_redis_or_another(cls, url: str | None) -> str | None:
        if url is not None and scheme_of(url) in SCHEMES:
            parse_redis_url(url)
        return url

    @field_validator("redis_password_file", "sentinel_password_file")
    @classmethod
    def _holds_a_password(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                empty = not _password_in(path)
            except (OSError, UnicodeDecodeError) as exc:
                raise ValueError(f"cannot be read ({type(exc).__name__}): {path}") from exc
            if empty:
                raise ValueError(f"is empty: {path}")
        return path

    @field_validator("redis_tls_ca", "redis_tls_cert", "redis_tls_key")
    @classmethod
    def _readable(cls, path: Path | None) -> Path | None:
        if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
            raise ValueError(f"is no file that can be read: {path}")
        return path

    @model_validator(mode="after")
    def _fit_together(self) -> "RedisSettings":
        faults = []
        if self.redis_password and self.redis_password_file:
            faults.append("REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set; use one")
        if self.sentinel_password and self.sentinel_password_file:
            faults.append("REDIS_SENTINEL_PASSWORD and REDIS_SENTINEL_PASSWORD_FILE are both set; use one")
        if (self.redis_tls_cert is None) != (self.redis_tls_key is None):
            faults.append("REDIS_TLS_CERT and REDIS_TLS_KEY belong together; one of them is missing")
        schemes = {scheme_of(url) for url in (self.redis_url, self.broker_url) if url}
        tls = (self.redis_tls_ca, self.redis_tls_cert, self.redis_tls_key)
        if any(tls) and not schemes & set(TLS_SCHEMES):
            faults.append(
                "REDIS_TLS_* is set, but no URL asks for TLS; write rediss:// or sentinels:// in REDIS_URL"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @cached_property
    def redis(self) -> RedisServer:
        """The ledger's server."""
        own = _secret(self.redis_username, self.redis_password, self.redis_password_file)
        return self._server(self.redis_url, own)

    @cached_property
    def broker(self) -> RedisServer | None:
        """Where Celery's messages travel; None where that is no Redis.

        The ledger's user name and password are never sent to another server.
        """
        if not self.broker_url:
            return self.redis
        if scheme_of(self.broker_url) not in SCHEMES:
            return None
        named = parse_redis_url(self.broker_url)
        same = (named.nodes, named.path) == (self.redis.nodes, self.redis.path)
        return self._server(self.broker_url, self.redis.credentials if same else NOBODY)

    def _server(self, url: str, fallback: Credentials) -> RedisServer:
        """What the URL says comes first; the variables fill in what it leaves open."""
        server = parse_redis_url(url)
        found = server.credentials
        if fallback and not found.password:
            server = replace(
                server, credentials=Credentials(found.username or fallback.username, fallback.password)
            )
        if server.tls is not None:
            tls = Tls(self.redis_tls_ca, self.redis_tls_cert, self.redis_tls_key, self.redis_tls_verify)
            server = replace(server, tls=tls)
        if server.sentinel is not None:
            own = _secret(self.sentinel_username, self.sentinel_password, self.sentinel_password_file)
            server = replace(server, sentinel=replace(server.sentinel, credentials=own))
        return server


def _secret(username: str | None, password: str | None, file: Path | None) -> Credentials:
    return Credentials(username or None, (_password_in(file) if file is not None else password) or None)


def _password_in(file: Path) -> str:
    """The line break at its end is none of the password."""
    return file.read_text(encoding="utf-8").rstrip("\r\n")
