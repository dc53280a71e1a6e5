"""Whether a Redis (or Valkey) server of the user's own can keep the ledger."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis

from api.up.valkey import MINIMUM
from shared.redis_client import connect
from shared.room import NO_MAXMEMORY, evicts


@dataclass(frozen=True)
class Findings:
    """`faults` make the server unfit; `warnings` are worth knowing. One line each."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examine(url: str) -> Findings:
    """Ask the server at `url` what it is. Never shows the password."""
    shown = without_password(url)
    try:
        client = connect(url, role="worker", max_connections=1)
    except ValueError as exc:
        return Findings([f"{shown}: not a Redis URL: {exc}"])
    try:
        return judge(shown, client.info())
    except redis.exceptions.AuthenticationError:
        return Findings([f"{shown}: the server refuses the user name or password"])
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
        return Findings([f"{shown}: cannot be reached: {exc}"])
    except redis.exceptions.RedisError as exc:
        return Findings(
            [], [f"{shown}: reached, but INFO is refused, so that it could not be checked: {exc}"]
        )
    finally:
        client.close()
        client.connection_pool.disconnect()


def judge(shown: str, info: Mapping[str, Any]) -> Findings:
    """The same from the server's INFO."""
    faults, warnings = [], []
    version = str(info.get("redis_version", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM:
        faults.append(f"{shown}: is version {version or 'unknown'}; Redis 6.2 or newer, or Valkey, is needed")
    if str(info.get("redis_mode", info.get("server_mode", ""))) == "cluster":
        faults.append(f"{shown}: is a cluster; Celery needs a standalone server (or Sentinel)")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        faults.append(f"{shown}: {evicts(policy)}")
    if not int(info.get("maxmemory", 0)):
        warnings.append(f"{shown}: {NO_MAXMEMORY}")
    if not int(info.get("aof_enabled", 0)):
        warnings.append(
            f"{shown}: the append-only file is off, so a restart of the server may lose accepted jobs"
        )
    return Findings(faults, warnings)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        place = f"[{host}]" if ":" in host else host
        netloc = f"{place}:{parts.port}" if parts.port else place
    except ValueError:
        return "REDIS_URL"
    return f"{parts.scheme}://{netloc}{parts.path}"
