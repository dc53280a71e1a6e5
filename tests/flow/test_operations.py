"""The commands of ops/docs/operations.md that change a password while the fleet runs."""

import hashlib
import os
from pathlib import Path

import pytest
import redis
from support.pages import commands, type_in
from support.servers import running_server
from support.stack import free_port

from shared.redis_acl import API_USER, WORKER_USER, acl_lines

pytestmark = pytest.mark.verify

HEADING = "Change keys and passwords"


def test_a_password_is_changed_with_both_of_them_good_in_between(tmp_path: Path) -> None:
    port, old, admin = free_port(), "words-of-the-api", "words-of-the-admin"
    hashes = {
        user: "#" + hashlib.sha256(word.encode()).hexdigest()
        for user, word in ((API_USER, old), (WORKER_USER, "others"), ("admin", admin))
    }
    users = tmp_path / "users.acl"
    lines = [*acl_lines(prefix="le", db=0, passwords=hashes), f"user admin on {hashes['admin']} ~* &* +@all"]
    users.write_text("\n".join(lines) + "\n")
    (tmp_path / "api.password.old").write_text(old + "\n")
    env = {**os.environ, "CLI": f"redis-cli -p {port} --user admin", "REDISCLI_AUTH": admin}

    def lets_in(word: str) -> bool:
        with redis.Redis(port=port, username=API_USER, password=word) as client:
            try:
                return bool(client.ping())
            except redis.exceptions.AuthenticationError:
                return False

    def asked_by_admin() -> "redis.Redis":
        return redis.Redis(port=port, username="admin", password=admin)

    with running_server("rotated", [f"port {port}", f"aclfile {users}"], client=asked_by_admin):
        assert lets_in(old)
        type_in(commands("operations", HEADING, 0), env, tmp_path)
        new = (tmp_path / "api.password.new").read_text().rstrip("\n")
        assert lets_in(old)
        assert lets_in(new)
        type_in(commands("operations", HEADING, 1), env, tmp_path)
        assert not lets_in(old)
        assert lets_in(new)
    assert hashlib.sha256(new.encode()).hexdigest() in users.read_text()
