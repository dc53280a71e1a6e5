"""What limits promise, on the memory twin and on Valkey."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import redis
from support.gates import Timed, memory_gate, valkey_gate

from shared.breaker import State
from shared.catalogue import Breaker
from shared.gate import Ask, Candidate, Exchanged, Flight, Report, Verdict
from shared.limits import ENDED_KEPT_S, MONEY_KEPT_S, SILENT_S, Kind, Limit, Limits, bucket_size, not_back
from shared.reasons import Reason
from shared.window import scope_of

_serials = itertools.count(1)
SETTINGS = Breaker()
RPM = Limit("p:a", "rpm", 1, 600)
PLAIN = Candidate("a", "a", "k1", "m")
CALLS = Limit("p:a", "concurrency", 1, 3)


def tpm(amount: float) -> Limit:
    return Limit("p:a", "tpm", amount, 6000)  # a bucket of 100


def money(amount: float) -> Limit:
    return Limit("b:1", "money", amount, 1000)


def at(*limits: Limit, provider: str = "a") -> Candidate:
    return Candidate(provider, provider, "k1", "m", "", limits)


class Fleet:
    def __init__(self, timed: Timed) -> None:
        self.timed = timed

    def exchange(
        self,
        *asks: Ask,
        reports: tuple[Report, ...] = (),
        sender: str = "s",
        held: Mapping[str, int] | None = None,
        adaptive: bool = False,
        serial: int = 0,
    ) -> Exchanged:
        return self.timed.gate.exchange(
            asks,
            reports,
            settings=SETTINGS,
            sender=sender,
            serial=serial or next(_serials),
            spread=0.5,
            flight=Flight(dict(held or {}), adaptive),
        )

    def ask(self, *candidates: Candidate, limits: Limits = (), **more: object) -> Verdict:
        ask = Ask(f"p{next(_serials)}", candidates, limits)
        return self.exchange(ask, **more).verdicts[0]  # type: ignore[arg-type]

    def grants(self, candidate: Candidate, times: int = 100) -> int:
        return sum(self.ask(candidate).choice == 0 for _ in range(times))

    def tell(self, candidate: Candidate, used: dict[str, float] | None, limits: Limits = ()) -> None:
        self.exchange(reports=(Report("x", candidate, 0, "answered", limits=limits, used=used),))


@pytest.fixture(params=["memory", "valkey"])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    if request.param == "memory":
        return Fleet(memory_gate())
    return Fleet(valkey_gate(request.getfixturevalue("valkey_url")))


def refusal(verdict: Verdict) -> tuple[Reason, str]:
    assert verdict.choice == -1
    (block,) = verdict.blocks
    return block.reason, block.detail


def test_requests_a_minute_come_through_at_their_rate_and_refusals_tell_when(fleet: Fleet) -> None:
    assert fleet.grants(at(RPM)) == 10  # a second's worth
    verdict = fleet.ask(at(RPM))
    assert refusal(verdict) == (Reason.LIMIT_REACHED, "rpm")
    for _ in range(20):
        fleet.timed.pass_time(verdict.blocks[0].until - fleet.timed.now() - 0.001)
        assert fleet.ask(at(RPM)).choice == -1
        fleet.timed.pass_time(0.001)
        assert fleet.ask(at(RPM)).choice == 0
        verdict = fleet.ask(at(RPM))
        assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 0.1, abs=1e-5)
    fleet.timed.pass_time(60)
    assert fleet.grants(at(RPM)) == 10


def test_a_rate_below_one_a_second_lets_one_through_at_a_time(fleet: Fleet) -> None:
    slow = at(Limit("p:a", "rpm", 1, 6))
    assert fleet.grants(slow, 3) == 1
    assert fleet.ask(slow).blocks[0].until == pytest.approx(fleet.timed.now() + 10, abs=1e-5)
    fleet.timed.pass_time(10.001)
    assert fleet.grants(slow, 3) == 1


def test_tokens_are_reserved_by_estimate_and_settled_by_what_was_used(fleet: Fleet) -> None:
    assert fleet.ask(at(tpm(80))).choice == 0
    assert refusal(fleet.ask(at(tpm(80)))) == (Reason.LIMIT_REACHED, "tpm")
    fleet.tell(at(tpm(80)), {"tpm": 10})  # 90 are left
    assert fleet.ask(at(tpm(80))).choice == 0
    fleet.tell(at(tpm(80)), {"tpm": 200})  # 110 too many
    verdict = fleet.ask(at(tpm(50)))
    assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 1.6, abs=1e-5)
    fleet.tell(at(tpm(80)), None)  # unknown: as it was
    assert fleet.ask(at(tpm(50))).blocks[0].until == pytest.approx(fleet.timed.now() + 1.6, abs=1e-5)


def test_a_request_for_which_nothing_was_reserved_is_taken_when_it_is_told(fleet: Fleet) -> None:
    fleet.tell(at(Limit("p:a", "rpm", 0, 6)), {"rpm": 1.0})
    assert refusal(fleet.ask(at(Limit("p:a", "rpm", 1, 6)))) == (Reason.LIMIT_REACHED, "rpm")


def test_a_call_larger_than_the_bucket_begins_when_it_is_full_and_leaves_a_debt(fleet: Fleet) -> None:
    assert fleet.ask(at(tpm(1000))).choice == 0
    verdict = fleet.ask(at(tpm(1000)))
    assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 10, abs=1e-5)
    fleet.timed.pass_time(9.9)
    assert fleet.ask(at(tpm(1000))).choice == -1
    fleet.timed.pass_time(0.101)
    assert fleet.ask(at(tpm(1000))).choice == 0


@pytest.mark.parametrize("beyond_measure", [6001.0, 1e12, 1e19, 1e300])
def test_no_call_takes_more_than_a_minutes_worth(fleet: Fleet, beyond_measure: float) -> None:
    def free_in_s() -> float:
        return fleet.ask(at(tpm(100))).blocks[0].until - fleet.timed.now()

    assert fleet.ask(at(tpm(beyond_measure))).choice == 0
    assert free_in_s() == pytest.approx(60, abs=1e-5)
    fleet.tell(at(tpm(beyond_measure)), {"tpm": 0.0})
    assert fleet.ask(at(tpm(100))).choice == 0
    fleet.timed.pass_time(1.001)
    assert fleet.ask(at(tpm(100))).choice == 0
    fleet.tell(at(tpm(100)), {"tpm": beyond_measure})
    assert free_in_s() == pytest.approx(60, abs=1e-5)
    assert fleet.ask(at(), limits=(money(1000),)).choice == 0  # it was of a rate only


def test_a_refusal_tells_which_limit_is_in_the_way_and_where_it_is_counted(fleet: Fleet) -> None:
    def told(verdict: Verdict) -> list[tuple[str, str]]:
        return [(block.detail, block.scope) for block in verdict.blocks]

    own = Limit("p:a|small", "rpm", 1, 6)
    fleet.ask(at(RPM, own, CALLS), limits=(money(700),))
    assert told(fleet.ask(at(RPM, own))) == [("rpm", "p:a|small")]
    assert told(fleet.ask(at(RPM), limits=(money(700),), held={"b:1": 1})) == [("money", "b:1")]
    assert told(fleet.ask(at(CALLS), held={"p:a": 3})) == [("concurrency", "p:a")]
    assert told(fleet.ask(at(money(700)))) == [("b:1", "b:1")]


def test_nothing_is_taken_for_a_call_that_is_refused(fleet: Fleet) -> None:
    both = at(RPM, tpm(60))
    assert [fleet.ask(both).choice for _ in range(5)] == [0, -1, -1, -1, -1]
    assert fleet.grants(at(RPM)) == 9
    fleet.timed.pass_time(10)
    for _ in range(5):
        fleet.exchange(reports=(Report("x", at(), 0, "failed"),))
    assert fleet.ask(at(RPM)).blocks[0].reason is Reason.BREAKER_OPEN
    fleet.timed.gate.change("a", "close", settings=SETTINGS)
    assert fleet.grants(at(RPM)) == 10


def test_a_limit_refuses_after_the_breaker_and_costs_it_no_probe(fleet: Fleet) -> None:
    assert fleet.grants(at(RPM)) == 10
    for _ in range(5):
        fleet.exchange(reports=(Report("x", at(), 0, "failed"),))
    fleet.timed.pass_time(30.1)
    full = at(tpm(1))
    fleet.tell(at(tpm(0)), {"tpm": 6000})
    assert refusal(fleet.ask(full)) == (Reason.LIMIT_REACHED, "tpm")
    circuit = fleet.timed.gate.look(["a"])[1][0].condition.breakers["a"]
    assert (circuit.state, circuit.probes) == (State.HALF_OPEN, {})


def test_the_next_candidate_is_asked_where_the_first_is_at_its_limit(fleet: Fleet) -> None:
    fleet.grants(at(RPM))
    verdict = fleet.ask(at(RPM), at(provider="b"))
    assert (verdict.choice, [block.detail for block in verdict.blocks]) == (1, ["rpm"])


def test_a_model_at_its_own_limit_keeps_no_other_model_of_its_provider_waiting(fleet: Fleet) -> None:
    small = at(RPM, Limit("p:a|small", "rpm", 1, 6), Limit("p:a|small", "concurrency", 1, 2))
    assert fleet.grants(small, 5) == 1
    assert fleet.grants(at(RPM), 5) == 5
    assert refusal(fleet.ask(small)) == (Reason.LIMIT_REACHED, "rpm")


def test_limits_of_the_ask_hold_whichever_provider_is_chosen(fleet: Fleet) -> None:
    quota = (Limit("o:1", "rpm", 1, 120),)
    assert fleet.ask(at(), limits=quota).choice == 0
    assert fleet.ask(at(provider="b"), limits=quota).choice == 0
    verdict = fleet.ask(at(), at(provider="b"), limits=quota)
    assert [(b.provider, b.reason) for b in verdict.blocks] == [
        ("a", Reason.LIMIT_REACHED),
        ("b", Reason.LIMIT_REACHED),
    ]


def test_calls_at_a_time_are_counted_over_all_senders(fleet: Fleet) -> None:
    assert fleet.ask(at(CALLS), sender="one").choice == 0
    assert fleet.ask(at(CALLS), sender="two").choice == 0
    assert fleet.ask(at(CALLS), sender="one", held={"p:a": 1}).choice == 0
    verdict = fleet.ask(at(CALLS), sender="two", held={"p:a": 1})
    assert refusal(verdict) == (Reason.LIMIT_REACHED, "concurrency")
    assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 0.35, abs=1e-5)
    # one of them ends
    report = Report("x", at(CALLS), 0, "answered")
    told = fleet.exchange(
        Ask("y", (at(CALLS),)), Ask("z", (at(CALLS),)), reports=(report,), sender="one", held={"p:a": 1}
    )
    assert [verdict.choice for verdict in told.verdicts] == [0, -1]


def test_a_sender_tells_its_count_anew_each_time_so_that_nothing_leaks(fleet: Fleet) -> None:
    for _ in range(9):
        assert fleet.ask(at(CALLS), sender="one").choice == 0  # its answers are lost, and no call begins
    assert fleet.grants(at(CALLS), 1) == 1
    told = [fleet.ask(at(CALLS), sender="two", held={"p:a": 2}, serial=7).choice for _ in range(3)]
    assert told == [-1, -1, -1]  # the same exchange again


def test_a_sender_that_falls_silent_counts_no_more(fleet: Fleet) -> None:
    fleet.exchange(sender="dead", held={"p:a": 3})
    assert fleet.ask(at(CALLS)).choice == -1
    fleet.timed.pass_time(SILENT_S - 0.1)
    fleet.exchange(sender="alive", held={"p:a": 1})
    assert fleet.ask(at(CALLS)).choice == -1
    fleet.timed.pass_time(0.2)
    assert fleet.ask(at(CALLS), held={"p:a": 1}).choice == 0
    assert fleet.ask(at(CALLS), held={"p:a": 2}).choice == -1


def test_what_has_ended_is_gone_though_its_scope_is_told_no_more(fleet: Fleet) -> None:
    fleet.exchange(sender="one", held={"p:a": 3})
    fleet.exchange(sender="one")
    assert [fleet.ask(at(CALLS), held={"p:a": n}).choice for n in range(4)] == [0, 0, 0, -1]


def test_money_is_reserved_and_settled_and_does_not_come_back_by_itself(fleet: Fleet) -> None:
    assert fleet.ask(at(), limits=(money(400),)).choice == 0
    assert fleet.ask(at(), limits=(money(400),)).choice == 0
    verdict = fleet.ask(at(), limits=(money(400),))
    assert refusal(verdict) == (Reason.BUDGET_SPENT, "b:1")
    assert verdict.blocks[0].until == 0.0
    fleet.tell(at(), {"money": 200}, (money(400),))
    assert fleet.ask(at(), limits=(money(400),)).choice == 0  # to the last nano-dollar
    fleet.tell(at(), None, (money(400),))
    fleet.timed.pass_time(100_000)
    assert fleet.ask(at(), limits=(money(1),)).choice == -1


def test_money_that_is_under_way_may_come_back_and_is_waited_for(fleet: Fleet) -> None:
    """The refusal is for good only where no call of anybody's under the same ceiling can leave some of what it reserved."""
    verdict = fleet.exchange(*(Ask(f"p{n}", (at(money(400)),)) for n in range(3))).verdicts[2]
    assert refusal(verdict) == (Reason.LIMIT_REACHED, "money")
    assert verdict.blocks[0].until > 0
    other = fleet.ask(at(money(400)), sender="other")
    assert refusal(other) == (Reason.LIMIT_REACHED, "money")
    fleet.exchange(sender="s", held={"b:1": 1})
    assert refusal(fleet.ask(at(money(400)), sender="other")) == (Reason.LIMIT_REACHED, "money")
    fleet.exchange(sender="s", held={})
    assert refusal(fleet.ask(at(money(400)), sender="other")) == (Reason.BUDGET_SPENT, "b:1")


def test_a_dead_workers_call_is_not_waited_for_and_its_money_stays_booked(fleet: Fleet) -> None:
    fleet.ask(at(money(700)), sender="dies")
    assert refusal(fleet.ask(at(money(400)), sender="lives")) == (Reason.LIMIT_REACHED, "money")
    fleet.timed.pass_time(SILENT_S + 0.1)
    assert refusal(fleet.ask(at(money(400)), sender="lives")) == (Reason.BUDGET_SPENT, "b:1")


def test_of_several_limits_money_is_told_first_and_then_the_longest(fleet: Fleet) -> None:
    spent, slow = money(1001), Limit("p:a", "tpm", 1, 60)
    for _ in range(10):
        fleet.ask(at(RPM))
    fleet.ask(at(slow))
    assert refusal(fleet.ask(at(RPM, slow, CALLS))) == (Reason.LIMIT_REACHED, "tpm")
    assert refusal(fleet.ask(at(RPM, slow), limits=(spent,))) == (Reason.BUDGET_SPENT, "b:1")
    assert refusal(fleet.ask(at(spent, RPM), limits=(slow,))) == (Reason.BUDGET_SPENT, "b:1")


def test_a_fleet_narrows_its_window_after_429s_and_goes_on(fleet: Fleet) -> None:
    limited = Report("x", PLAIN, 0, "limited", "rate_limited")

    def tells(report: Report, *senders: tuple[str, int]) -> None:
        for sender, n in senders:
            fleet.exchange(reports=(report,), sender=sender, held={"w:a": n}, adaptive=True)

    tells(Report("x", PLAIN, 0, "answered", duration_s=1.0), ("one", 5))
    tells(limited, ("one", 5))  # from now on calls are counted
    fleet.timed.pass_time(1.01)
    tells(Report("x", PLAIN, 0, "answered", duration_s=1.0), ("one", 5), ("two", 5))
    tells(limited, ("two", 4))  # 5 + 4, and the one that it was
    window = fleet.timed.gate.look(["a"])[1][0].condition.windows["a"]
    assert window.size == pytest.approx(7.0)
    assert fleet.timed.gate.look(["a"])[1][0].condition.cool_downs == {}
    held: dict[str, Any] = {"sender": "one", "adaptive": True}
    assert [fleet.ask(PLAIN, held={"w:a": n}, **held).choice for n in (1, 2, 3)] == [0, 0, -1]
    full = fleet.ask(PLAIN, held={"w:a": 3}, **held)
    assert refusal(full) == (Reason.LIMIT_REACHED, "concurrency")
    assert full.blocks[0].scope == scope_of("a")
    assert fleet.ask(at(CALLS), held={"w:a": 3}, **held).choice == 0  # it has a limit of its own
    assert fleet.ask(PLAIN, held={"w:a": 3}, sender="one").choice == 0  # not adaptive


def test_a_burst_that_is_refused_before_the_first_answer_narrows_the_window_once_a_second(
    fleet: Fleet,
) -> None:
    limited = Report("x", PLAIN, 0, "limited", "rate_limited")
    for wait_s in (0.0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3):
        fleet.timed.pass_time(wait_s)
        fleet.exchange(reports=(limited,), sender="one", held={"w:a": 99}, adaptive=True)
    window = fleet.timed.gate.look(["a"])[1][0].condition.windows["a"]
    assert window.size == pytest.approx(70.0)


def test_a_429_cools_down_where_nobody_is_answered(fleet: Fleet) -> None:
    fleet.exchange(reports=(Report("x", PLAIN, 0, "limited"),), adaptive=True)
    verdict = fleet.ask(PLAIN, adaptive=True)
    assert verdict.blocks[0].reason is Reason.RATE_LIMITED


def test_what_is_in_use_can_be_looked_at_and_comes_back_by_itself(fleet: Fleet) -> None:
    gate, rate = fleet.timed.gate, Limit("p:a", "tpm", 30, 6000)
    asked: list[tuple[Kind, str]] = [("concurrency", "p:a"), ("tpm", "p:a"), ("money", "b:1")]
    assert gate.taken(asked)[1] == [0.0, 0.0, 0.0]
    fleet.ask(at(CALLS, rate), limits=(money(400),), sender="one")
    fleet.ask(at(CALLS, rate), sender="two")
    fleet.ask(at(CALLS), sender="one", held={"p:a": 1})
    now, (calls, full_at, spent) = gate.taken(asked)
    assert (calls, spent) == (3, 400)
    assert not_back(full_at, rate.ceiling, now) == pytest.approx(60, abs=0.01)
    assert bucket_size(rate.ceiling) == 100
    fleet.timed.pass_time(0.3)
    now, (_, full_at, _) = gate.taken(asked)
    assert not_back(full_at, rate.ceiling, now) == pytest.approx(30, abs=0.01)
    fleet.exchange(sender="two")  # its call has ended
    fleet.timed.pass_time(SILENT_S - 0.2)  # and "one" is heard of no more
    now, (calls, full_at, spent) = gate.taken(asked)
    assert (calls, not_back(full_at, rate.ceiling, now), spent) == (0, 0.0, 400)


def test_the_calls_in_flight_under_a_window_can_be_looked_at(fleet: Fleet) -> None:
    limited = Report("x", PLAIN, 0, "limited", "rate_limited")
    asked: list[tuple[Kind, str]] = [("concurrency", scope_of("a"))]
    fleet.exchange(reports=(Report("x", PLAIN, 0, "answered"),), held={"w:a": 5}, adaptive=True)
    assert fleet.timed.gate.taken(asked)[1] == [0]  # there is no window yet
    fleet.exchange(reports=(limited,), sender="one", held={"w:a": 5}, adaptive=True)
    fleet.ask(PLAIN, sender="two", held={"w:a": 2}, adaptive=True)
    assert fleet.timed.gate.taken(asked)[1] == [8]


def test_a_provider_that_answers_has_no_calls_counted(valkey_url: str) -> None:
    timed = valkey_gate(valkey_url)
    fleet = Fleet(timed)
    assert fleet.ask(PLAIN, held={"w:a": 5}, adaptive=True).choice == 0
    fleet.exchange(reports=(Report("x", PLAIN, 0, "answered"),), held={"w:a": 5}, adaptive=True)
    with redis.Redis.from_url(valkey_url) as client:
        assert not client.keys(f"{timed.prefix}:fl:*")


def test_asks_without_limits_leave_nothing_about_them(valkey_url: str) -> None:
    timed = valkey_gate(valkey_url)
    fleet = Fleet(timed)
    assert fleet.ask(PLAIN).choice == 0
    fleet.tell(PLAIN, None)
    with redis.Redis.from_url(valkey_url) as client:
        assert not client.keys(f"{timed.prefix}:lm:*")
        assert not client.keys(f"{timed.prefix}:fl:*")


def test_counters_go_by_themselves_when_they_say_nothing_any_more(valkey_url: str) -> None:
    timed = valkey_gate(valkey_url, lasting=False)
    fleet = Fleet(timed)
    fleet.ask(at(RPM, CALLS), limits=(money(1),))
    with redis.Redis.from_url(valkey_url) as client:
        lasts = {
            name: client.ttl(f"{timed.prefix}:{name}") for name in ("lm:rpm:p:a", "fl:p:a", "lm:money:b:1")
        }
    assert lasts["lm:rpm:p:a"] == 1
    assert 0 < lasts["fl:p:a"] <= 2 * SILENT_S
    assert lasts["lm:money:b:1"] > 86_400


def test_what_is_told_after_a_batchs_end_is_not_kept_for_long(valkey_url: str) -> None:
    timed = valkey_gate(valkey_url, lasting=False)
    fleet = Fleet(timed)
    spent = Limit("batch:batch_1", "money", 1, 1000)
    key = f"{timed.prefix}:lm:money:batch:batch_1"
    with redis.Redis.from_url(valkey_url) as client:
        client.set(f"{timed.prefix}:b:batch_1:st", "p")  # it runs
        fleet.ask(PLAIN, limits=(spent,))
        assert client.ttl(key) > ENDED_KEPT_S
        client.delete(f"{timed.prefix}:b:batch_1:st")
        fleet.ask(PLAIN, limits=(spent,))
        assert 0 < client.ttl(key) <= ENDED_KEPT_S


def test_a_counter_that_is_beyond_all_measure_breaks_no_exchange(valkey_url: str) -> None:
    """As one may stand there from before a call took a minute's worth at most."""
    timed = valkey_gate(valkey_url, lasting=False)
    fleet = Fleet(timed)
    with redis.Redis.from_url(valkey_url) as client:
        client.set(f"{timed.prefix}:lm:tpm:p:a", "1e30")
        fleet.tell(at(tpm(10)), {"tpm": 60})
        assert 0 < client.ttl(f"{timed.prefix}:lm:tpm:p:a") <= MONEY_KEPT_S
