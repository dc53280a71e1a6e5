"""The Redis users we ship: complete, and no more than that."""

import hashlib
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from api.cli import config
from shared.redis_acl import API_USER, WORKER_USER, acl_lines, script_commands

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "shared"
DANGEROUS = {
    *(
        "eval",
        "eval_ro",
        "flushall",
        "flushdb",
        "keys",
        "scan",
        "config",
        "debug",
        "shutdown",
        "acl",
        "monitor",
    ),
    *(
        "client",
        "replicaof",
        "slaveof",
        "script",
        "function",
        "pubsub",
        "migrate",
        "restore",
        "module",
        "save",
    ),
}


def run(*words: str, **env: str) -> tuple[int, str]:
    app = typer.Typer()
    app.add_typer(config.app, name="config")
    result = CliRunner().invoke(app, ["config", "acl", *words], env=env)
    return result.exit_code, result.output


def users(text: str) -> dict[str, list[str]]:
    return {line.split()[1]: line.split()[2:] for line in text.splitlines()}


def test_the_shipped_file_is_what_the_command_prints() -> None:
    code, printed = run(LLM_EDGE_KEY_PREFIX="", REDIS_URL="", BROKER_URL="")
    assert code == 0
    assert (ROOT / "ops/redis/users.acl").read_text() == printed, (
        "write it anew: llm-edge config acl > ops/redis/users.acl"
    )


def test_no_user_has_a_category_or_a_command_that_rules_a_server() -> None:
    found = users(run()[1])
    assert found.pop("default") == ["off"]
    assert set(found) == {API_USER, WORKER_USER}
    for rules in found.values():
        assert not [rule for rule in rules if rule.startswith("+@") or rule in {"~*", "&*", "allkeys"}]
        assert not DANGEROUS & {rule[1:] for rule in rules if rule.startswith("+")}


def test_what_the_stores_ask_without_a_script_is_allowed() -> None:
    """Names of redis-py's methods are those of the commands, but for a few."""
    called = set()
    for file in SHARED.glob("redis_*.py"):
        called |= set(re.findall(r"(?:_redis|pipe|client)\.([a-z]+)\(", file.read_text()))
    called -= {"execute", "pipeline", "close"}  # redis-py's own
    assert {"hget", "set", "zrangebyscore", "delete"} <= called
    wanted = {{"delete": "del"}.get(name, name) for name in called}
    for user in (API_USER, WORKER_USER):
        assert {f"+{name}" for name in wanted | script_commands()} <= set(users(run()[1])[user])


def test_prefix_database_and_passwords(tmp_path: Path) -> None:
    file = tmp_path / "word"
    file.write_text("hush\n")
    code, printed = run(
        *("--api-password-file", str(file)), LLM_EDGE_KEY_PREFIX="mine", REDIS_URL="redis://:secret@h/3"
    )
    assert code == 0
    rules = users(printed)
    assert {"~mine:*", "&mine:*", "&/3.celeryev/*"} <= set(rules[API_USER])
    assert rules[API_USER][1] == f"#{hashlib.sha256(b'hush').hexdigest()}"
    assert "hush" not in printed
    assert "secret" not in printed
    code, said = run("--worker-password-file", str(tmp_path / "absent"))
    assert (code, "No such file" in said) == (1, True)


@pytest.mark.parametrize("user", [API_USER, WORKER_USER])
def test_each_line_is_one_that_redis_6_2_reads(user: str) -> None:
    lines = acl_lines(prefix="le", db=0, passwords={API_USER: "#a", WORKER_USER: "#b"})
    assert len(lines) == 3
    for rule in users("\n".join(lines))[user]:
        assert re.fullmatch(r"on|#.|resetkeys|resetchannels|-@all|~\S+|&\S+|\+[a-z]+(\|[a-z]+)?", rule), rule
