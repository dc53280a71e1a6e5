"""Redis ACL users for the API and for the workers: what each needs, and nothing more.

The ledger's commands are read from its own Lua scripts, so that the list cannot fall behind them. The rest is what
redis-py and kombu 5.7 send. All of it is known to Redis 6.2, hence no selectors and no `%R~`.
"""

import re
from collections.abc import Mapping
from importlib.resources import files

from shared.broker import BATCH_QUEUE, EXCHANGE, INTERACTIVE_QUEUE

API_USER = "llm_edge_api"
WORKER_USER = "llm_edge_worker"

_CALL = re.compile(r"\bp?call\(\s*(?:'([A-Z]+)')?")

_CONNECTION = "ping select multi exec discard evalsha script|load script|exists info"
_PUB_SUB = "publish subscribe unsubscribe psubscribe punsubscribe"
_LEDGER = (
    "exists get getbit getrange hget hgetall hmget hset mget set time unlink zrangebylex zrangebyscore zrem "
    "zrevrangebylex"
)
_PRODUCER = "llen lpush sadd smembers"
_CONSUMER = (
    "brpop del expire hdel hget hset llen lpush pexpire rpop rpush sadd set smembers srem time unwatch watch zadd "
    "zrange zrem"
)

_PRIORITIES = "??[369]"
"""Behind a queue's name: two control characters of kombu's and the priority."""


def acl_lines(*, prefix: str, db: int, passwords: Mapping[str, str]) -> list[str]:
    """One `user` line each, for an `aclfile` (which takes no comments) or for redis.conf.

    `passwords` holds, by user, a rule of Redis': `#` and the SHA-256 in hexadecimal. `db` is the number of the broker's
    database: kombu puts it into the names of its channels.
    """
    queues = [f"{queue}{tail}" for queue in (INTERACTIVE_QUEUE, BATCH_QUEUE) for tail in ("", _PRIORITIES)]
    events = f"/{db}.celeryev/*"
    ours = [f"{prefix}:*", f"{prefix}:replies:*"]  # a pattern subscribed to must stand here literally
    api = _user(
        API_USER,
        passwords[API_USER],
        keys=[f"{prefix}:*", *queues, f"_kombu.binding.{EXCHANGE}", f"_kombu.binding_permanent.{EXCHANGE}"],
        channels=[*ours, events],
        commands=[_CONNECTION, _PUB_SUB, _LEDGER, _PRODUCER],
    )
    mailboxes = [f"*.celery.pidbox{tail}" for tail in ("", _PRIORITIES)]
    worker = _user(
        WORKER_USER,
        passwords[WORKER_USER],
        keys=[
            *(f"{prefix}:*", *queues, "unacked", "unacked_index", "unacked_mutex"),
            *("_kombu.binding*", *mailboxes, "celeryev.*"),
        ],
        channels=[*ours, events, f"/{db}.celeryev/worker.*", f"/{db}.celery.pidbox"],
        commands=[_CONNECTION, _PUB_SUB, _LEDGER, _CONSUMER],
    )
    return ["user default off", api, worker]


def script_commands() -> set[str]:
    """The commands that the ledger's scripts call, in small letters. Raises ValueError for one that is computed."""
    found = set()
    for script in (files("shared") / "lua").iterdir():
        if not script.name.endswith(".lua"):
            continue
        for command in _CALL.findall(script.read_text("utf-8")):
            if not command:
                raise ValueError(f"{script.name} calls a command whose name is not written out")
            found.add(command.lower())
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
