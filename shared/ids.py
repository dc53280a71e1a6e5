"""Ids: a prefix and 32 hex digits that begin with the time, so that ids of a kind sort by age."""

import re
import secrets
import time

_RANDOM_BYTES = 10
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def new_id(prefix: str) -> str:
    """`prefix` + 48 bits of Unix milliseconds + 80 random bits, as in UUID version 7."""
    return f"{prefix}{int(time.time() * 1000):012x}{secrets.token_hex(_RANDOM_BYTES)}"


def new_file_id() -> str:
    return new_id("file-")


def new_batch_id() -> str:
    return new_id("batch_")


def new_job_id() -> str:
    return new_id("job_")


def job_id(batch_id: str, index: int) -> str:
    """The id of a batch's `index`-th job, as its output line shows it: always the same for the same job."""
    return f"batch_req_{batch_id.removeprefix('batch_')}{index:05x}"


def is_id(text: str) -> bool:
    """Whether it could be an id. What comes from a request is asked this before it becomes part of a key in Redis."""
    return _ID.fullmatch(text) is not None
