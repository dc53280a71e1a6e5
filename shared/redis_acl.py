"""Redis ACL users for the API and for the workers: what each needs, and nothing more.

Commands are named one by one, since Redis' categories hold too much (`@read` has KEYS, `@keyspace` FLUSHALL, `@pubsub`
every channel's names). The ledger's are read from its own Lua scripts, so that the list cannot fall behind them; the
rest is what redis-py and kombu 5.7 send. All of it is known to Redis 6.2, hence no selectors and no `%R~`.
"""

import re
from collections.abc import Mapping
from importlib.resources import files

from shared.queues import BATCH_QUEUE, EXCHANGE, INTERACTIVE_QUEUE

API_USER = "llm_edge_api"
WORKER_USER = "llm_edge_worker"

_CALL = re.compile(r"\bp?call\(\s*(?:'([A-Z]+)'(?:,\s*'([A-Z]+)')?)?")
_CONTAINERS = {"PUBSUB"}
"""Commands whose next word names the one that is meant."""

_CONNECTION = "ping select info"
"""redis-py: its health check, the URL's database. INFO says how full the server is, and `llm-edge config check` more."""
_SCRIPTS = "evalsha script|load script|exists"
"""The ledger's scripts and kombu's. No EVAL: the text of a script travels once."""
_LEDGER = (
    "del exists get getbit getrange hget hgetall hmget hset mget multi exec set time unlink zrangebylex"
    " zrangebyscore zrem zrevrangebylex"
)
"""What shared/redis_*.py ask without a script, all of it within the prefix."""
_REPLICAS = "wait"
"""Under LLM_EDGE_WAIT_REPLICAS."""
_REPLIES = "subscribe unsubscribe"
"""The API hears how lone jobs ended. That they are told, by PUBLISH, is the scripts' affair."""
_PRODUCER = "llen lpush multi exec publish sadd smembers"
"""kombu: bind a queue, put a message into it, and say so by a `task-sent` event."""
_CONSUMER = (
    "brpop del exists expire get hdel hget hset llen lpush multi exec pexpire psubscribe publish punsubscribe rpop rpush"
    " sadd set smembers srem subscribe time unsubscribe unwatch watch zadd zrange zrangebyscore zrem"
)
"""kombu: take messages, keep them in `unacked` until acknowledged, put those of the dead back (WATCH, and a lock: SET),
hear remote control and other workers, answer on queues that come and go (EXPIRE, DEL)."""

_PRIORITIES = "??[369]"
"""Behind a queue's name: two control characters of kombu's and the priority."""


def acl_lines(*, prefix: str, db: int, passwords: Mapping[str, str]) -> list[str]:
    """One `user` line each, for an `aclfile` (which takes no comments) or for redis.conf.

    `passwords` holds, by user, a rule of Redis': `#` and the SHA-256 in hexadecimal. `db` is the number of the broker's
    database: kombu puts it into the names of its channels.
    """
    queues = [f"{queue}{tail}" for queue in (INTERACTIVE_QUEUE, BATCH_QUEUE) for tail in ("", _PRIORITIES)]
    ours, events = f"{prefix}:*", f"/{db}.celeryev/*"
    api = _user(
        API_USER,
        passwords[API_USER],
        keys=[ours, *queues, f"_kombu.binding.{EXCHANGE}", f"_kombu.binding_permanent.{EXCHANGE}"],
        channels=[ours, events],  # no pidbox: it cannot command workers
        commands=[_CONNECTION, _SCRIPTS, _LEDGER, _REPLICAS, _REPLIES, _PRODUCER],
    )
    mailboxes = [f"*.celery.pidbox{tail}" for tail in ("", _PRIORITIES)]
    worker = _user(
        WORKER_USER,
        passwords[WORKER_USER],
        keys=[
            *(ours, *queues, "unacked", "unacked_index", "unacked_mutex"),
            *("_kombu.binding*", *mailboxes, "celeryev.*"),
        ],
        # a pattern that is subscribed to must stand here literally: `worker.*` is what gossip hears
        channels=[ours, events, f"/{db}.celeryev/worker.*", f"/{db}.celery.pidbox"],
        commands=[_CONNECTION, _SCRIPTS, _LEDGER, _CONSUMER],
    )
    return ["user default off", api, worker]


def script_commands() -> set[str]:
    """The commands that the ledger's scripts call, in small letters. Raises ValueError for one that is computed."""
    found = set()
    for script in (files("shared") / "lua").iterdir():
        if not script.name.endswith(".lua"):
            continue
        for command, word in _CALL.findall(script.read_text("utf-8")):
            if not command or (command in _CONTAINERS and not word):
                raise ValueError(f"{script.name} calls a command whose name is not written out")
            found.add((f"{command}|{word}" if command in _CONTAINERS else command).lower())
    return found


def _user(name: str, password: str, *, keys: list[str], channels: list[str], commands: list[str]) -> str:
    wanted = script_commands() | {word for words in commands for word in words.split()}
    return " ".join(
        [
            *("user", name, "on", password),
            *("resetkeys", *(f"~{key}" for key in keys)),
            *("resetchannels", *(f"&{channel}" for channel in channels)),
            *("-@all", *(f"+{command}" for command in sorted(wanted))),
        ]
    )
