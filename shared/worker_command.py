"""The command line of a worker process. Imports little: `llm-edge worker` becomes that command, which imports everything itself."""

import os
import socket
import sys

from shared.errors import ConfigError
from shared.queues import BATCH_QUEUE, INTERACTIVE_QUEUE


def check_pool(pool: str, command: str = "llm-edge worker") -> str:
    """The pool's name. Raises ConfigError for a pool in which a worker cannot hold its calls together.

    `command` is what the user typed, to be corrected.
    """
    if pool not in {"gevent", "threads"}:
        raise ConfigError(
            [
                (
                    f"the {pool} pool is not supported: use `{command} --pool gevent` (or `--pool threads`),"
                    " and more processes for more cores"
                )
            ]
        )
    return pool


# Celery looks in the working folder first: packages of the same name there must not stand in for ours
_CELERY = "import shared, workers; from celery.__main__ import main; main()"


def worker_command(*, name: str | None, pool: str) -> list[str]:
    """The command line of a worker: plain Celery; `celery -A workers.app worker -P gevent` is the same.

    Raises ConfigError for a pool in which a worker cannot hold its calls together.
    """
    check_pool(pool)
    node = name or f"w@{socket.gethostname()}-{os.getpid()}"
    return [
        *(sys.executable, "-c", _CELERY, "-A", "workers.app", "worker"),
        *("-P", pool, "-n", node),
        *("-Q", f"{INTERACTIVE_QUEUE},{BATCH_QUEUE}", "--without-gossip", "--without-mingle"),
    ]
