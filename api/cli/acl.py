"""`llm-edge config acl`: the Redis users of a fleet, ready for an ACL file."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.config import load_settings
from shared.errors import ConfigError
from shared.redis_acl import API_USER, WORKER_USER, acl_lines

_Password = Annotated[
    Path | None, typer.Option(help="File with the password. Default: a placeholder, which Redis refuses.")
]


def acl(api_password_file: _Password = None, worker_password_file: _Password = None) -> None:
    """Print Redis ACL users for the API and the workers, with the default user off. Passwords appear as hashes only.

    The key prefix is LLM_EDGE_KEY_PREFIX, the database that of BROKER_URL or REDIS_URL.
    """
    try:
        settings = load_settings(
            {k: v for k, v in os.environ.items() if k in {"LLM_EDGE_KEY_PREFIX", "REDIS_URL", "BROKER_URL"}}
        )
        hashes = {
            API_USER: _hashed(api_password_file, "THE_API"),
            WORKER_USER: _hashed(worker_password_file, "THE_WORKERS"),
        }
    except ConfigError as exc:
        print(f"llm-edge config acl: {exc.message}", file=sys.stderr, flush=True)
        raise typer.Exit(1) from exc
    db = settings.broker.db if settings.broker is not None else 0
    for line in acl_lines(prefix=settings.key_prefix, db=db, passwords=hashes):
        print(line)


def _hashed(file: Path | None, whose: str) -> str:
    """`#` and the password's SHA-256, as Redis keeps it."""
    if file is None:
        return f"#SHA256_OF_THE_PASSWORD_OF_{whose}"
    try:
        password = file.read_bytes().rstrip(b"\r\n")
    except OSError as exc:
        raise ConfigError([f"{file}: {exc.strerror}"]) from exc
    if not password:
        raise ConfigError([f"{file}: is empty"])
    return f"#{hashlib.sha256(password).hexdigest()}"
