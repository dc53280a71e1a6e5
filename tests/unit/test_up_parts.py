"""The rules of the parts' lives, and the plan of what runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from api.up.parts import GIVE_UP_AFTER, MAX_DELAY_S, QUICK_S, STEADY_S, Life, Part, Role
from api.up.plan import Embedded, Simulated, Stack, cores, parts_of
from api.up.valkey import Instance, Server

INSTANCE = Instance(Path("/data"), 7000, "hush", 1 << 30)
EMBEDDED = Embedded(Server(Path("/bin/valkey-server"), "9.1.0"), INSTANCE, Path("/d/valkey.conf"))
STACK = Stack(
    host="127.0.0.1",
    port=8080,
    workers=2,
    worker_names="box",
    environ={"OPENAI_API_KEY": "sk-1", "PATH": "/bin", "LLM_EDGE_CONFIG": ""},
    embedded=EMBEDDED,
    simulated=Simulated(7001, Path("/d/providers.yaml"), ("--seed", "7")),
)


def delays(lives_s: list[float]) -> list[float]:
    life, found = Life(), []
    for lived_s in lives_s:
        life = life.after_end(lived_s)
        found.append(life.delay_s)
    return found


def test_the_wait_doubles_up_to_ten_seconds() -> None:
    assert delays([0.1] * 7) == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_long_life_makes_the_next_wait_short_again() -> None:
    assert delays([1, 1, 1, STEADY_S, 1]) == [0.5, 1.0, 2.0, 0.5, 1.0]


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1))
def test_the_wait_is_always_within_bounds(lives_s: list[float]) -> None:
    assert all(0.5 <= delay_s <= MAX_DELAY_S for delay_s in delays(lives_s))


def test_only_quick_ends_in_a_row_are_hopeless() -> None:
    life = Life()
    for _ in range(GIVE_UP_AFTER - 1):
        life = life.after_end(0.1)
    assert not life.hopeless
    assert life.after_end(0.1).hopeless
    assert not life.after_end(QUICK_S).after_end(0.1).hopeless


def test_options_that_are_not_understood_are_hopeless_at_once() -> None:
    assert Life().after_end(0.1, status=2).hopeless
    assert not Life().after_end(QUICK_S, status=2).hopeless


def by_name(stack: Stack) -> Mapping[str, Part]:
    return {part.name: part for part in parts_of(stack)}


def test_the_server_starts_first_and_stops_last() -> None:
    parts = parts_of(STACK)
    assert [part.name for part in parts] == ["valkey", "simulator", "api", "worker-1", "worker-2"]
    stopped = sorted(parts, key=lambda part: part.role)
    assert [part.role for part in stopped] == [
        Role.WORKER,
        Role.WORKER,
        Role.API,
        Role.SIMULATOR,
        Role.SERVER,
    ]


def test_workers_have_distinct_host_parts() -> None:
    workers = [part.argv for part in parts_of(STACK) if part.role is Role.WORKER]
    names = [argv[argv.index("--name") + 1] for argv in workers]
    assert names == ["w@box-1", "w@box-2"]


def test_parts_are_told_where_everything_is() -> None:
    env = by_name(replace(STACK, concurrency=9, log_level="debug"))["worker-1"].env
    assert env["REDIS_URL"] == "redis://:hush@127.0.0.1:7000/0"
    assert (env["SERVER_HOST"], env["SERVER_PORT"]) == ("127.0.0.1", "8080")
    assert env["LLM_EDGE_CONFIG"] == "/d/providers.yaml"
    assert (env["LLM_EDGE_CONCURRENCY"], env["LOG_LEVEL"]) == ("9", "debug")
    assert env["OPENAI_API_KEY"] == "sk-1"


def test_the_server_sees_no_key_and_no_password_on_its_command_line() -> None:
    part = by_name(STACK)["valkey"]
    assert part.env == {"PATH": "/bin"}
    assert part.argv == ("/bin/valkey-server", "/d/valkey.conf")
    assert part.answers is not None


def test_options_for_the_simulator_come_last_so_that_they_win() -> None:
    argv = by_name(STACK)["simulator"].argv
    assert argv[argv.index("--port") + 1] == "7001"
    assert argv[-2:] == ("--seed", "7")


def test_with_a_server_and_providers_of_ones_own_neither_is_started_nor_overridden() -> None:
    own = {"REDIS_URL": "redis://r/0", "LLM_EDGE_CONFIG": "/mine.yaml"}
    parts = by_name(replace(STACK, embedded=None, simulated=None, environ=own, workers=1))
    assert list(parts) == ["api", "worker-1"]
    assert parts["api"].env["REDIS_URL"] == "redis://r/0"
    assert parts["api"].env["LLM_EDGE_CONFIG"] == "/mine.yaml"


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1


def test_the_api_has_longer_to_end_than_it_gives_its_requests() -> None:
    assert by_name(replace(STACK, api_grace_s=60.0))["api"].grace_s > 60.0
