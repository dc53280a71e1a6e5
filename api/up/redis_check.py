"""Whether a Redis (or Valkey) server of the user's own can keep the ledger."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.sentinel import MasterNotFoundError

from api.up.valkey import MINIMUM
from shared.errors import StoreRefusedError, StoreUnavailableError
from shared.redis_client import connect, store_errors
from shared.redis_tls import tls_refusal
from shared.redis_url import RedisServer
from shared.room import NO_MAXMEMORY, evicts


@dataclass(frozen=True)
class Findings:
    """`faults` make the server unfit; `warnings` are worth knowing. One line each. `replicas`: how many are connected, where it was told."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    replicas: int | None = None


def examine(server: RedisServer) -> Findings:
    """Ask the server what it is. Never shows user name or password."""
    client = connect(server, role="worker", max_connections=1)
    try:
        with store_errors():
            return judge(server, client.info())
    except StoreRefusedError as exc:
        if "the command INFO" in exc.message:
            return Findings(
                [], [f"{server.shown}: reached, but INFO is denied, so that it could not be checked"]
            )
        return Findings([f"{server.shown}: {exc.message}"])
    except StoreUnavailableError as exc:
        return Findings([f"{server.shown}: {tls_refusal(server) or f'cannot be reached: {_why(exc)}'}"])
    except redis.exceptions.RedisError as exc:
        return Findings(
            [], [f"{server.shown}: reached, but INFO is refused, so that it could not be checked: {exc}"]
        )
    finally:
        client.close()
        client.connection_pool.disconnect()


def _why(exc: StoreUnavailableError) -> str:
    """redis-py's own words name host and port and the system's reason, and nothing secret."""
    return exc.message if isinstance(exc.__cause__, MasterNotFoundError) else str(exc.__cause__)


def judge(server: RedisServer, info: Mapping[str, Any]) -> Findings:
    """The same from the server's INFO."""
    faults, warnings, shown = [], [], server.shown
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
    replicas = int(info.get("connected_slaves", 0))
    if server.sentinel is not None and not replicas:
        warnings.append(f"{shown}: no replica is connected, so there is nothing to fail over to")
    return Findings(faults, warnings, replicas)
