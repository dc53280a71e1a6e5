"""Where a Redis (or Valkey) is and how to get in, read from its URL: one record for the ledger's client and for Celery's broker."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

SCHEMES = ("redis", "rediss", "unix", "redis+socket", "sentinel", "sentinels")
"""What is understood. `rediss` and `sentinels` are with TLS; `redis+socket` is Celery's word for `unix`."""

TLS_SCHEMES = ("rediss", "sentinels")

_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "sentinels": 26379}
_DB_WORDS = ("db", "virtual_host")  # redis-py's word, and kombu's

_NO_HOST = "has a host or port that is none; in a user name or password write %23 for #, %2F for /, %3A for :, %3F for ?, %40 for @"

Verify = Literal["full", "ca", "none"]
Node = tuple[str, int]


@dataclass(frozen=True)
class Credentials:
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password)


NOBODY = Credentials()


@dataclass(frozen=True)
class Tls:
    """How the other side is verified, and what is shown to it. Files in PEM."""

    ca: Path | None = None
    """Trusted besides what this machine trusts already."""
    cert: Path | None = None
    key: Path | None = None
    verify: Verify = "full"
    """`full`: chain and host name; `ca`: the chain alone; `none`: nothing."""


@dataclass(frozen=True)
class Sentinel:
    """The sentinels' name for the master, and what they want to hear themselves."""

    master: str
    credentials: Credentials = NOBODY


@dataclass(frozen=True)
class RedisServer:
    """One server, one Unix socket, or, with `sentinel`, the sentinels that know where the master is."""

    nodes: tuple[Node, ...] = ()
    path: str = ""
    db: int = 0
    credentials: Credentials = NOBODY
    tls: Tls | None = None
    sentinel: Sentinel | None = None

    @property
    def shown(self) -> str:
        """The URL as it may be shown: without user name and password."""
        if self.path:
            return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        scheme = ("sentinel" if self.sentinel else "redis") + ("s" if self.tls else "")
        hosts = ",".join(f"{bracketed(host)}:{port}" for host, port in self.nodes)
        return f"{scheme}://{hosts}/{self.db}" + (f"?master={self.sentinel.master}" if self.sentinel else "")


def bracketed(host: str) -> str:
    """The host as a URL writes it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def parse_redis_url(url: str) -> RedisServer:
    """`redis://`, `rediss://`, `unix://` and `sentinel://`, `sentinels://` URLs, in redis-py's and kombu's spelling.

    `sentinel://[user:password@]host[:26379],host.../db?master=NAME`; user and password are the Redis server's. Raises
    ValueError saying what is wrong; the URL itself is never repeated, for it may hold a password.
    """
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        raise ValueError("must start with redis://, rediss://, sentinel://, sentinels:// or unix://")
    if ";" in url:
        raise ValueError("names several servers by `;`: several sentinels are joined by commas in one URL")
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may repeat what the URL holds
        raise ValueError(_NO_HOST) from None
    if parts.fragment:
        raise ValueError(_NO_HOST)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    query = _query(parts, sentinel=scheme.startswith("sentinel"))
    credentials = _credentials(userinfo)
    if scheme in {"unix", "redis+socket"}:
        if hosts or not parts.path:
            raise ValueError("names no socket: write unix:///path/to/socket")
        return RedisServer(path=unquote(parts.path), db=_db("", query), credentials=credentials)
    return RedisServer(
        nodes=_nodes(hosts, scheme),
        db=_db(parts.path, query),
        credentials=credentials,
        tls=Tls() if scheme in TLS_SCHEMES else None,
        sentinel=Sentinel(query["master"]) if scheme.startswith("sentinel") else None,
    )


def _credentials(userinfo: str) -> Credentials:
    username, _, password = userinfo.partition(":")
    return Credentials(unquote(username) or None, unquote(password) or None)


def _query(parts: SplitResult, *, sentinel: bool) -> dict[str, str]:
    query = dict(parse_qsl(parts.query))
    known = {*_DB_WORDS, "master"} if sentinel else set(_DB_WORDS)
    if unknown := sorted(query.keys() - known):
        raise ValueError(
            f"has options that are not known: {', '.join(unknown)}. TLS is set by REDIS_TLS_CA, REDIS_TLS_CERT, "
            "REDIS_TLS_KEY and REDIS_TLS_VERIFY; timeouts are fixed"
        )
    if sentinel and not query.get("master"):
        raise ValueError("does not name the master: add ?master=NAME, as in `sentinel monitor NAME ...`")
    return query


def _db(path: str, query: dict[str, str]) -> int:
    text = next((query[word] for word in _DB_WORDS if word in query), path.strip("/")) or "0"
    if not text.isdecimal():
        raise ValueError("must end with the number of a database, like /0")
    return int(text)


def _nodes(hosts: str, scheme: str) -> tuple[Node, ...]:
    nodes = tuple(_node(piece, _PORTS[scheme]) for piece in hosts.split(","))
    if len(nodes) > 1 and not scheme.startswith("sentinel"):
        raise ValueError("names several servers: one server, or sentinel://host,host/0?master=NAME")
    return nodes


def _node(text: str, default: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(_NO_HOST) from None
    if "@" in text or parts.path:
        raise ValueError(_NO_HOST)
    return unquote(parts.hostname or "127.0.0.1"), default if port is None else port
