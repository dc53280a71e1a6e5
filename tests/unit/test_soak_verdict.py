"""What `make soak` concludes: slopes with their error, kinds of keys, and what counts as growth."""

import pytest
from soak import keys, verdict
from soak.gauges import MIB, Sample, by_minute, slope
from soak.keys import Kind


def test_a_slope_is_by_the_hour_and_says_how_sure_it_is() -> None:
    exact = slope([(float(t), 5 + t / 1800) for t in range(0, 3600, 60)])
    assert exact.an_hour == pytest.approx(2.0)
    assert exact.error == pytest.approx(0.0, abs=1e-9)
    shaken = slope([(0.0, 0.0), (3600.0, 2.0), (7200.0, 1.0)])
    assert shaken.an_hour == pytest.approx(0.5)
    assert shaken.error == pytest.approx((1.5 / 2) ** 0.5)  # residuals -0.5, 1, -0.5; sxx = 2 hours^2


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(0.0, 1.0), (1.0, 2.0)], [(1.0, 1.0)] * 5])
def test_what_has_no_slope_has_none(points: list[tuple[float, float]]) -> None:
    assert (slope(points).an_hour, slope(points).error) == (0.0, 0.0)


def test_looks_of_one_minute_count_once() -> None:
    assert by_minute([(0.0, 1.0), (50.0, 3.0), (60.0, 7.0)]) == [(25.0, 2.0), (60.0, 7.0)]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("le:b:batch_01a21f98b059683c61e8da9cff382e4d:s:12", "le:b:batch_ID:s:N"),
        ("le:f:file-01a21f98b04747d45f17e80263628d67:c", "le:f:file-ID:c"),
        ("le:gs:vm-26330-c39dff", "le:gs:vm-N-ID"),
        ("le:once:default:k5d7c96341bc25459b2048902f8257a19", "le:once:default:ID"),
        ("le:sk:one:29930440", "le:sk:one:N"),
        ("1a2b3c4d-1a2b-3c4d-5e6f-1a2b3c4d5e6f.reply.celery.pidbox", "ID.reply.celery.pidbox"),
        ("le:lone:kept", "le:lone:kept"),
    ],
)
def test_keys_of_one_kind_have_one_name(key: str, kind: str) -> None:
    assert keys.pattern(key) == kind


def test_what_stays_without_a_reason_is_a_fault_and_is_named() -> None:
    found = keys.faults(
        {}, {"le:j:job_ID": Kind(keys=3, lasting=3, entries=27), "le:workers": Kind(1, 1, 2)}, 5
    )
    assert found == ["redis: 3 keys le:j:job_ID (27 entries) that nothing will remove"]


def test_what_stays_with_a_reason_must_not_grow() -> None:
    before, after = {"le:workers": Kind(1, 1, 2)}, {"le:workers": Kind(1, 1, 30)}
    assert keys.faults(before, after, 5) == ["redis: le:workers grew from 2 to 30 entries"]
    assert keys.faults({}, after, 5) == []


def test_mailboxes_of_the_killed_may_stay_and_no_more() -> None:
    name = "_kombu.binding.celery.pidbox"
    assert keys.faults({}, {name: Kind(1, 1, 5)}, 5) == []
    assert keys.faults({}, {name: Kind(1, 1, 6)}, 5) != []


def _samples(*, mib_an_hour: float, descriptors_an_hour: int = 0) -> list[Sample]:
    return [
        Sample(
            float(t), int((80 + mib_an_hour * t / 3600) * MIB), 40 + descriptors_an_hour * t // 3600, 30, 3
        )
        for t in range(0, 7200, 5)
    ]


def test_growth_is_judged_only_where_there_was_time_for_it() -> None:
    samples = {"api": _samples(mib_an_hour=3)}
    lines, found = verdict.of_processes(samples, 600, judged=True)
    assert "+3.00 MiB an hour (standard error 0.00)" in lines[0]
    assert found == ["api grows by 3.00 MiB an hour"]
    lines, found = verdict.of_processes(samples, 600, judged=False)
    assert "not judged" in lines[0]
    assert found == []


def test_a_process_that_is_flat_passes_and_descriptors_that_grow_do_not() -> None:
    assert verdict.of_processes({"api": _samples(mib_an_hour=1.9)}, 600, judged=True)[1] == []
    _, found = verdict.of_processes(
        {"api": _samples(mib_an_hour=0, descriptors_an_hour=20)}, 600, judged=True
    )
    assert len(found) == 1
    assert found[0].startswith("api: descriptors grew from")


def test_pools_may_keep_their_sockets_and_no_more() -> None:
    few, many, crowd = (Sample(0.0, 1, 20, n, 3) for n in (10, 150, 161))
    assert verdict.at_rest({"worker": few}, {"worker": many})[1] == []
    assert len(verdict.at_rest({"worker": few}, {"worker": crowd})[1]) == 1
