import pytest
from bench.folded import ELSE, Cost, area_of, costs, nameless, titled

ENTRY = "<module> (celery/__main__.py:15);worker (celery/bin/worker.py:400)"
CALL = f"{ENTRY};execute (workers/execute.py:9);post (requests/api.py:115)"


@pytest.mark.parametrize(
    ("frame", "area"),
    [
        ("Session.send (requests/sessions.py:703)", "requests call"),
        ("Transport._post.<locals>.<dictcomp> (workers/transport.py:157)", "our workers"),
        ("Redis.execute_command (redis/client.py)", "Redis client"),
        ("Channel._brpop_read (kombu/transport/redis.py:1476)", "Celery and kombu"),
        ("Mapping.get (<frozen _collections_abc>:771)", None),
        ("Hub.run (gevent/hub.py:631)", None),
        ("serve (api/server.py:50)", None),
        ("MainThread", None),
    ],
)
def test_a_frame_belongs_to_the_area_of_its_module(frame: str, area: str | None) -> None:
    assert area_of(frame) == area


def test_own_shares_add_up_and_the_standard_library_counts_for_its_caller() -> None:
    found = costs(
        [
            f"{CALL};Mapping.get (<frozen _collections_abc>:771) 3",
            f"{ENTRY};execute (workers/execute.py:9) 4\n",
            f"{ENTRY};poll (gevent/select.py:3) 1",
        ]
    )
    assert found == [
        Cost("our workers", 4 / 8, 7 / 8),
        Cost("requests call", 3 / 8, 3 / 8),
        Cost(ELSE, 1 / 8, 1 / 8),
    ]


def test_an_area_met_twice_in_a_stack_counts_once() -> None:
    twice = "a (redis/client.py:1);b (shared/scripts.py:2);c (redis/retry.py:3) 5"
    assert costs([twice]) == [Cost("Redis client", 1.0, 1.0), Cost("our shared", 0.0, 1.0)]


def test_no_samples_no_costs() -> None:
    assert costs([]) == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("get (/home/me/edge/.venv/lib/python3.11/site-packages/redis/client.py:9)", "get (redis/client.py:9)"),
        ("wait (/usr/lib/python3.11/threading.py:3)", "wait (threading.py:3)"),
        ("run (/home/me/edge/workers/shard.py:1)", "run (workers/shard.py:1)"),
        ("run (workers/shard.py:1)", "run (workers/shard.py:1)"),
        ('xmlns="http://www.w3.org/2000/svg"', 'xmlns="http://www.w3.org/2000/svg"'),
    ],
)  # fmt: skip
def test_no_folder_of_this_machine_is_left(text: str, clean: str) -> None:
    assert nameless(text, "/home/me/edge") == clean


def test_a_title_of_ours() -> None:
    svg = '<text id="title" x="50%">/tmp/x/py-spy record -p 7</text><text id="details">y</text>'
    assert titled(svg, "api, lone") == '<text id="title" x="50%">api, lone</text><text id="details">y</text>'
