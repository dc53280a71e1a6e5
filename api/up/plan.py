"""From what was asked for to the list of parts: which programs, with which environment. Pure, so easily tested."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.keyring import entry_of
from api.up.parts import Part, Role
from api.up.simulated import simulator_argv
from api.up.valkey import Instance, Server, answers, listens

API_ENDS_S = 5.0
"""What the API needs to end, beyond the time that it gives its open requests."""
SERVER_GRACE_S = 10.0
SIMULATOR_GRACE_S = 3.0

OWN_NAME = "llm-edge-up"
"""The owner of `up`'s own key; it owns nothing."""

_SERVER_ENV = frozenset(
    {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
)
"""What the server is given of the environment; API keys are none of its business."""


@dataclass(frozen=True)
class Embedded:
    """The server that `up` runs itself."""

    server: Server
    instance: Instance
    config: Path


@dataclass(frozen=True)
class Simulated:
    """The simulator that stands in for providers: its port, the providers file that names it, its options."""

    port: int
    providers: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stack:
    """Everything that decides what runs. Without `embedded`, the server is the one REDIS_URL names."""

    host: str
    port: int
    workers: int
    worker_names: str
    """The host part of the workers' names before their number."""
    environ: Mapping[str, str]
    grace_s: float = 30.0
    api_grace_s: float = 20.0
    """What the API gives its open requests."""
    concurrency: int | None = None
    pool: str = "gevent"
    log_level: str | None = None
    embedded: Embedded | None = None
    simulated: Simulated | None = None
    own_key: str = ""
    """Where keys are configured: the one with which `up` asks its API how things stand."""


def parts_of(stack: Stack) -> list[Part]:
    """The parts in the order in which they start."""
    env = environment(stack)
    parts = []
    if stack.embedded is not None:
        parts.append(_server(stack.embedded, stack.environ))
    if stack.simulated is not None:
        argv = simulator_argv(stack.simulated.port, stack.simulated.options)
        answer = partial(listens, stack.simulated.port)
        parts.append(Part("simulator", Role.SIMULATOR, argv, env, SIMULATOR_GRACE_S, answer))
    parts.append(Part("api", Role.API, _command("api"), env, stack.api_grace_s + API_ENDS_S))
    for number in range(1, stack.workers + 1):
        argv = _command("worker", "--name", f"w@{stack.worker_names}-{number}", "--pool", stack.pool)
        parts.append(Part(f"worker-{number}", Role.WORKER, argv, env, stack.grace_s))
    return parts


def environment(stack: Stack) -> dict[str, str]:
    """What the parts get: the user's own environment and what `up` decided."""
    env = dict(stack.environ)
    env["SERVER_HOST"], env["SERVER_PORT"] = stack.host, str(stack.port)
    env["PYTHONUNBUFFERED"] = "1"  # the last words of a part that dies are the ones that matter
    env["PYTHONSAFEPATH"] = "1"  # a folder named `api` or `workers` where `up` was called is not ours
    if stack.own_key:
        entry = entry_of(OWN_NAME, stack.own_key, admin=True)
        env["LLM_EDGE_API_KEYS"] = ",".join(filter(None, (env.get("LLM_EDGE_API_KEYS"), entry)))
    if stack.embedded is not None:
        env["REDIS_URL"] = stack.embedded.instance.url
    if stack.simulated is not None:
        env["LLM_EDGE_CONFIG"] = str(stack.simulated.providers)
    if stack.concurrency is not None:
        env["LLM_EDGE_CONCURRENCY"] = str(stack.concurrency)
    if stack.log_level is not None:
        env["LOG_LEVEL"] = stack.log_level
    return env


def _server(embedded: Embedded, environ: Mapping[str, str]) -> Part:
    return Part(
        "valkey",
        Role.SERVER,
        (str(embedded.server.path), str(embedded.config)),
        {name: value for name, value in environ.items() if name in _SERVER_ENV},
        SERVER_GRACE_S,
        partial(answers, embedded.instance.url),
    )


def _command(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "api.cli.main", *words)


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
