import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.routes import NOW, ids, provider

from shared.catalogue import Provider, Routing
from shared.errors import ConfigError
from workers.routing import rank
from workers.strategies import STRATEGIES, custom
from workers.strategies.custom import Guarded, load, load_strategies, strategy_of
from workers.strategies.records import RoutedJob, View

ABC = [provider("a"), provider("b"), provider("c")]
FILE = """
def backwards(job, providers, views, now):
    return list(reversed(providers))

def with_an_option(job, providers, views, now, *, bold=False):
    return list(providers)

class Object:
    def __call__(self, *arguments):
        return list(arguments[1])

an_object = Object()
number = 5
def two(job, providers): ...
def five(job, providers, views, now, more): ...
def keyword(job, providers, views, now, *, needed): ...
async def later(job, providers, views, now): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def routing(**own: str) -> Routing:
    return Routing(strategies=own, strategy=next(iter(own), "round_robin"))


def test_a_users_own_is_found_by_its_name(module: str) -> None:
    chosen = routing(mine=f"{module}:backwards")
    assert ids(rank(strategy_of(chosen, chosen.strategy), RoutedJob("m"), ABC, {}, NOW)) == ["c", "b", "a"]
    assert ids(rank(strategy_of(chosen, chosen.strategy), RoutedJob("m", tried=("c",)), ABC, {}, NOW)) == [
        "b",
        "a",
        "c",
    ]
    assert list(load_strategies(chosen)) == [*STRATEGIES, "mine"]


@pytest.mark.parametrize("name", ["with_an_option", "an_object"])
def test_what_takes_four_arguments_will_do(module: str, name: str) -> None:
    assert ids(load(f"{module}:{name}")(RoutedJob("m"), ABC, {}, NOW)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("missing", "has no `missing`"),
        ("number", "is int, which cannot be called"),
        ("two", r"cannot be called with 4 arguments \(too many"),
        ("five", r"cannot be called with 4 arguments \(missing a required argument: 'more'"),
        ("keyword", r"cannot be called with 4 arguments \(missing a required.* argument: 'needed'"),
        ("later", "coroutine"),
    ],
)
def test_what_cannot_be_a_strategy(module: str, name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load(f"{module}:{name}")
    assert f"{module}:{name}: " in caught.value.message


def test_every_faulty_one_is_named_at_once_though_only_one_is_chosen(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}_broken.py").write_text("1 / 0")
    with pytest.raises(ConfigError) as caught:
        load_strategies(
            routing(
                good=f"{module}:backwards",
                away="no_such_package.thing:rank",
                broken=f"{module}_broken:rank",
                two=f"{module}:two",
            )
        )
    away, broken, two = caught.value.faults
    assert away.startswith("routing.strategies.away: no_such_package.thing:rank: ")
    assert "ModuleNotFoundError: No module named 'no_such_package'" in away
    assert "PYTHONPATH" in away
    assert "ZeroDivisionError: division by zero" in broken
    assert "(job, providers, views, now)" in two


def test_the_slow_return_is_as_long_as_the_file_says() -> None:
    chosen = Routing(strategy="failover", slow_start_s=0)
    views = {"a": View(recovered_at=NOW)}
    for strategy in (strategy_of(chosen, chosen.strategy), load_strategies(chosen)["failover"]):
        assert {strategy(RoutedJob("m", turn), ABC, views, NOW)[0].id for turn in range(20)} == {"a"}


@pytest.mark.parametrize(
    ("answer", "order"),
    [
        ([ABC[2], ABC[0], ABC[1]], "cab"),
        ([ABC[1]], "bac"),
        ([], "abc"),
        ([ABC[1], ABC[1], provider("stranger")], "bac"),
        (iter([ABC[2]]), "cab"),
        (None, "abc"),
        (["a"], "abc"),
        (itertools.repeat(ABC[1]), "bac"),
        ([SimpleNamespace(id=1), SimpleNamespace(id="b")], "bac"),
        ([SimpleNamespace(id=[])], "abc"),
        (5, "abc"),
    ],
)
def test_whatever_it_answers_each_provider_is_there_once(answer: Any, order: str) -> None:
    guarded = Guarded("own:rank", lambda *_: answer)
    assert "".join(ids(guarded(RoutedJob("m"), ABC, {}, NOW))) == order


@pytest.mark.parametrize("exc", [ZeroDivisionError, RecursionError, SystemExit, GeneratorExit])
def test_one_that_raises_loses_no_job_and_is_told_once(exc: type[BaseException]) -> None:
    def rank_badly(*_: object) -> list[Provider]:
        raise exc

    guarded = Guarded("own:rank", rank_badly)
    with capture_logs() as told:
        for turn in range(3):
            assert ids(guarded(RoutedJob("m", turn), ABC, {}, NOW)) == ["a", "b", "c"]
    assert [(entry["event"], entry["strategy"]) for entry in told] == [("strategy_raised", "own:rank")]


def test_one_that_is_slow_is_told_once_and_rests_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "SLOW_S", -1.0)
    guarded = Guarded("own:rank", lambda _, providers, *__: reversed(providers))
    with capture_logs() as told:
        orders = ["".join(ids(guarded(RoutedJob("m", turn), ABC, {}, NOW))) for turn in range(3)]
        monkeypatch.setattr(guarded, "_rests_until", 0.0)
        orders.append("".join(ids(guarded(RoutedJob("m"), ABC, {}, NOW))))
    assert orders == ["cba", "abc", "abc", "cba"]
    assert [entry["event"] for entry in told] == ["strategy_slow"]


def test_a_module_that_ends_the_process_is_a_fault_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_that_exits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="SystemExit: 3"):
        load("own_that_exits:rank")


def test_the_one_in_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "ops" / "docs" / "routing.md").read_text(encoding="utf-8")
    code = page.partition("## A strategy of your own")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "documented_strategy.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    own = load("documented_strategy:rank")
    known = [provider("a", cost_per_1k_tokens="0.1"), provider("b", cost_per_1k_tokens="0.2")]
    views = {"a": View(latency_s=9.0), "b": View(latency_s=1.0)}
    assert ids(own(RoutedJob("m"), known, views, NOW)) == ["a", "b"]
    assert ids(own(RoutedJob("m", left_s=5.0), known, views, NOW)) == ["b", "a"]
