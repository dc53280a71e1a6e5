"""What a request may ask of the routing, and whom it leads to."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.blind_fleet import BlindFleet

from shared.catalogue import Catalogue, Provider, Routing
from shared.jobs import Fault
from shared.lines import ENDPOINTS, Request, check_body, read_body
from shared.offer import CatalogueOffer
from shared.routing_asked import MOST_NAMES, NOTHING_ASKED, RoutingAsked, wrong
from workers.options import MOST_OPTIONS, options_of, without
from workers.strategies.records import RoutedJob

CHAT = ENDPOINTS[0]


def provider(name: str, *models: str, **changes: object) -> Provider:
    names = {m: m for m in models or ("m",)}
    found = {"id": name, "endpoint": "http://127.0.0.1:1/v1", "models": names, **changes}
    return Provider.model_validate(found)


FLEET = Catalogue(
    providers=(
        provider("a", "m", priority=3),
        provider("b", "m", "other", priority=2),
        provider("c", "other", priority=1),
        provider("off", "gone", enabled=False),
    )
)


def body(**routing: object) -> bytes:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "routing": routing}
    return json.dumps(asked).encode()


def refused(**routing: object) -> tuple[str, str | None]:
    found = check_body(body(**routing), CHAT, CatalogueOffer(FLEET))
    assert isinstance(found, Fault), found
    return found.code, found.param


@pytest.mark.parametrize(
    ("routing", "param"),
    [
        ({"strategy": "os.system"}, "routing.strategy"),
        ({"strategy": ""}, "routing.strategy"),
        ({"providers": []}, "routing.providers"),
        ({"providers": ["nobody"]}, "routing.providers"),
        ({"providers": ["c"]}, "routing.providers"),
        ({"providers": ["off"]}, "routing.providers"),
        ({"models": ["gone"]}, "routing.models"),
        ({"models": ["m"] * 101}, "routing.models"),
    ],
)
def test_names_that_lead_nowhere_are_refused_with_their_place(routing: dict[str, object], param: str) -> None:
    assert refused(**routing) == ("invalid_routing", param)


def test_a_word_that_is_not_known_is_no_silent_wish() -> None:
    assert refused(strategi="failover")[0] == "invalid_request"
    assert refused(providers="a")[0] == "invalid_request"


@pytest.mark.parametrize(
    "routing",
    [{}, {"strategy": "failover"}, {"providers": ["a"]}, {"providers": ["c"], "models": ["other"]}],
)
def test_what_can_be_done_passes_and_is_not_sent_on(routing: dict[str, object]) -> None:
    assert check_body(body(**routing), CHAT, CatalogueOffer(FLEET)) == "m"
    found = read_body(body(**routing))
    assert "routing" not in json.loads(found.body)
    assert found.routing is not None


@pytest.mark.parametrize("name", [b"routing", b"\\u0072outing", b"routin\\u0067"])
def test_a_null_is_nothing_asked_and_is_not_sent_on_either(name: bytes) -> None:
    raw = body().replace(b"{}", b"null").replace(b"routing", name)
    assert check_body(raw, CHAT, CatalogueOffer(FLEET)) == "m"
    assert "routing" not in json.loads(read_body(raw).body)


NAME = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.sampled_from(["a", "m", "failover", "x" * 70_000, "\x00", "../a", "\ud800", "__import__"]),
)
VALUE = st.one_of(NAME, st.lists(NAME, max_size=3), st.dictionaries(st.text(max_size=3), NAME, max_size=2))


@given(
    st.one_of(
        VALUE,
        st.dictionaries(
            st.sampled_from(["strategy", "providers", "models", "x", "\ud800"]), VALUE, max_size=4
        ),
    )
)
def test_whatever_stands_there_is_a_fault_or_leads_to_providers_of_the_file(routing: Any) -> None:
    raw = json.dumps({"model": "m", "messages": ["hi"], "routing": routing}).encode()
    found = check_body(raw, CHAT, CatalogueOffer(FLEET))
    if isinstance(found, Fault):
        assert found.code in {"invalid_request", "invalid_routing"}
        assert len(found.message.encode()) < 2000
        return
    request = read_body(raw)
    assert "routing" not in json.loads(request.body)
    options = options_of(request, None, RoutedJob("m"), endpoint=CHAT, catalogue=FLEET, fleet=BlindFleet())
    assert {option.provider.id for option in options} <= {"a", "b", "c"}
    assert options


def test_however_many_models_it_names_the_gate_is_asked_about_so_many_options_at_most() -> None:
    any_model = Catalogue(providers=tuple(provider(f"p{n}", "*") for n in range(30)))
    asked = RoutingAsked(models=tuple(f"m{n}" for n in range(MOST_NAMES)))
    request = Request("c", "m", b'{"model": "m", "messages": []}', asked)
    found = options_of(request, None, RoutedJob("m"), endpoint=CHAT, catalogue=any_model, fleet=BlindFleet())
    assert len({option.provider.id for option in found if option.model == "m"}) == 30
    assert len(found) < MOST_OPTIONS + 30


def test_the_text_of_a_prompt_is_left_alone() -> None:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": 'say "routing"'}]}).encode()
    assert json.loads(read_body(raw).body) == json.loads(raw)


def test_a_models_name_that_nobody_serves_is_another_fault() -> None:
    raw = body(strategy="failover").replace(b'"m"', b'"nobodys"', 1)
    found = check_body(raw, CHAT, CatalogueOffer(FLEET))
    assert isinstance(found, Fault)
    assert found.code == "model_not_found"


def test_the_batchs_word_counts_where_the_jobs_is_silent() -> None:
    batch = RoutingAsked(strategy="failover", models=("other",))
    assert RoutingAsked(providers=("a",)).over(batch) == RoutingAsked(
        strategy="failover", providers=("a",), models=("other",)
    )
    assert RoutingAsked(strategy="round_robin").over(batch).strategy == "round_robin"
    assert wrong(NOTHING_ASKED, FLEET) is None
    offer = CatalogueOffer(FLEET, RoutingAsked(providers=("c",), models=("other",)))
    assert offer.serves("m")
    assert not CatalogueOffer(FLEET, RoutingAsked(providers=("c",))).serves("m")


def asked_for(routing: RoutingAsked, by_default: RoutingAsked | None = None) -> list[tuple[str, str]]:
    request = Request("c", "m", b'{"model": "m", "messages": []}', routing)
    found = options_of(
        request, by_default, RoutedJob("m"), endpoint=CHAT, catalogue=FLEET, fleet=BlindFleet()
    )
    return [(option.provider.id, option.model) for option in found]


def test_its_own_model_comes_first_then_the_others_it_names() -> None:
    assert asked_for(RoutingAsked(strategy="failover")) == [("b", "m"), ("a", "m")]
    both = RoutingAsked(strategy="failover", models=("other", "m"))
    assert asked_for(both) == [("b", "m"), ("a", "m"), ("c", "other"), ("b", "other")]
    assert asked_for(RoutingAsked(providers=("a",)), both) == [("a", "m")]


def test_a_strategy_of_ones_own_is_told_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "told = []\ndef rank(job, providers, views, now):\n    told.append(job.left_s)\n    return providers\n"
    (tmp_path / "own_deadline.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    own = Routing(strategies={"own": "own_deadline:rank"}, strategy="own")
    fleet = Catalogue(providers=FLEET.providers, routing=own)
    request = Request("c", "m", b'{"model": "m", "messages": []}')
    for left_s in (None, 60.0, -5.0):
        about = RoutedJob("m", left_s=left_s)
        options_of(request, None, about, endpoint=CHAT, catalogue=fleet, fleet=BlindFleet())
    assert importlib.import_module("own_deadline").told == [None, 60.0, -5.0]


def test_one_that_refuses_its_key_is_out_for_all_models_one_that_refuses_a_model_for_that_alone() -> None:
    request = Request("c", "m", b"{}", RoutingAsked(strategy="failover", models=("other",)))
    found = options_of(request, None, RoutedJob("m"), endpoint=CHAT, catalogue=FLEET, fleet=BlindFleet())
    assert [o.provider.id for o in without(found, found[0], model_only=False)] == ["a", "c"]
    left = without(found, found[0], model_only=True)
    assert [(o.provider.id, o.model) for o in left] == [("a", "m"), ("c", "other"), ("b", "other")]
