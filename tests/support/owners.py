"""A stack that asks for keys, with two owners and an administrator."""

from collections.abc import Iterator
from contextlib import contextmanager

from support.stack import Stack, running_stack

from api.keyring import entry_of, new_key

ALICE, BOB, ADMIN = new_key(), new_key(), new_key()
KEYS = ",".join(
    [entry_of("alice", ALICE), entry_of("bob", BOB), entry_of("ops", ADMIN, admin=True)],
)


@contextmanager
def running_with_keys(workers: int = 2, **env: str) -> Iterator[Stack]:
    env = {"LLM_EDGE_API_KEYS": KEYS, "LLM_EDGE_API_KEY": ADMIN, **env}
    with running_stack(workers=workers, aof=False, part_env=None, configure=Stack.configure, **env) as stack:
        yield stack


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
