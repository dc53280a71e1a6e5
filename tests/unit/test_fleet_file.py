"""The providers file of a running process, as editors, deployments and accidents leave it."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.catalogue import parse_catalogue
from shared.clock import ManualClock
from shared.config import load_settings
from shared.errors import ConfigError
from shared.fleet_file import QUOTA_LIFTED_S, RACY_S, FleetFile, version_of
from shared.fleet_watch import FleetWatch


def text(*ids: str) -> str:
    return "providers:\n" + "".join(f"  - {{id: {name}, endpoint: 'http://h/v1'}}\n" for name in ids)


class Desk:
    """A file that is written in various ways, its time set by the test's clock."""

    def __init__(self, folder: Path, contents: str | bytes = "", name: str = "providers.yaml") -> None:
        self.clock = ManualClock()
        self.path = folder / name
        self.write(contents or text("a"))
        self.file = FleetFile(self.path, self.clock)

    def write(self, contents: str | bytes) -> None:
        self.path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        self.stamp()

    def stamp(self) -> None:
        os.utime(self.path, (self.clock.now(), self.clock.now()))

    def replace(self, contents: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(contents)
        os.utime(fresh, (self.clock.now(), self.clock.now()))
        fresh.replace(self.path)

    def looks(self, times: int = 2) -> list[bool]:
        return [self.look() for _ in range(times)]

    def look(self) -> bool:
        self.clock.advance(0.5)
        return self.file.look()

    @property
    def ids(self) -> list[str]:
        return [provider.id for provider in self.file.current.providers]


def test_a_file_that_lifts_a_quota_must_lie_there_for_longer(tmp_path: Path) -> None:
    """Half a file may well be a valid one without the quotas that stand at its end."""
    whole = text("a") + "owners: {alice: {max_cost: 1}}\n"
    desk = Desk(tmp_path, whole)
    desk.write(text("a"))
    times = int(QUOTA_LIFTED_S / 0.5)
    assert not any(desk.looks(times))
    desk.write(whole.replace("max_cost: 1", "max_cost: 2"))
    assert any(desk.looks(2)), "another quota is no lifted one"
    desk.write(text("a") + "owners: {'*': {max_cost: 1}}\n")
    assert any(desk.looks(2)), "alice has everybody's quota now"
    desk.write(text("a"))
    assert desk.looks(times + 1) == [False] * times + [True]
    assert desk.file.current.owners == {}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_does_not_change_is_not_read_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(desk.looks(10))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert not any(desk.looks(10))


def test_a_change_is_taken_at_the_second_look_and_says_which_it_is(desk: Desk) -> None:
    before = desk.file.state
    assert before.version == version_of(text("a").encode())
    assert (len(before.version), before.loaded_at, before.fault) == (12, 1_750_000_000.0, None)
    desk.looks(10)
    desk.write(text("a", "b"))
    assert desk.looks() == [False, True]
    assert desk.ids == ["a", "b"]
    state = desk.file.state
    assert state.version == version_of(text("a", "b").encode())
    assert (state.loaded_at, state.fault) == (desk.clock.now(), None)
    assert desk.looks(5) == [False] * 5


def test_an_editor_that_replaces_the_file(desk: Desk) -> None:
    desk.looks(10)
    desk.replace(text("b"))
    assert desk.looks() == [False, True]
    assert desk.ids == ["b"]


def test_an_editor_that_takes_it_away_for_a_moment_is_not_noticed(desk: Desk) -> None:
    desk.looks(10)
    desk.path.unlink()
    assert desk.look() is False
    desk.write(text("b"))
    assert desk.looks() == [False, True]
    assert (desk.ids, desk.file.state.fault) == (["b"], None)


def test_symlinks_that_are_swapped_as_kubernetes_does(tmp_path: Path) -> None:
    for version, names in (("v1", ("a",)), ("v2", ("a", "b"))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "providers.yaml").write_text(text(*names))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "providers.yaml").symlink_to("..data/providers.yaml")
    file = FleetFile(tmp_path / "providers.yaml")
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    shutil.rmtree(tmp_path / "v1")
    assert [file.look(), file.look()] == [False, True]
    assert [provider.id for provider in file.current.providers] == ["a", "b"]


def test_a_second_change_within_the_same_time_stamp_is_found(desk: Desk) -> None:
    desk.looks(10)
    desk.write(text("b"))
    desk.looks()
    stamp = desk.path.stat()
    with desk.path.open("r+") as out:  # the same inode, and as long
        out.write(text("c"))
    os.utime(desk.path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    assert desk.clock.now() - stamp.st_mtime < RACY_S
    assert any(desk.looks())
    assert desk.ids == ["c"]


def test_touched_or_written_as_it_was_it_is_the_same(desk: Desk) -> None:
    desk.looks(10)
    desk.stamp()
    assert not any(desk.looks(4))
    desk.replace(text("a"))
    assert not any(desk.looks(4))


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        "a: [",
        "providers: []",
        "\x00",
        b"\xff\xfe",
        "providers: 2020-99-99",
        "[" * 1000,  # deeper than Python's stack
    ],
)
def test_a_faulty_file_is_refused_once_and_the_one_before_stays(desk: Desk, broken: str | bytes) -> None:
    version = desk.file.state.version
    desk.write(broken)
    assert desk.looks(6) == [False, True, False, False, False, False]
    assert desk.ids == ["a"]
    assert desk.file.state.version == version
    assert "providers.yaml" in str(desk.file.state.fault)
    desk.write(text("b"))
    assert any(desk.looks())
    assert (desk.ids, desk.file.state.fault) == (["b"], None)


def test_what_was_in_force_put_back_ends_the_fault_and_is_not_loaded_again(desk: Desk) -> None:
    before = desk.file.state
    desk.write("a: [")
    desk.looks()
    desk.write(text("a"))
    assert desk.looks() == [False, True]
    assert desk.file.state == before


def test_a_file_that_is_gone_is_a_fault(desk: Desk) -> None:
    desk.path.unlink()
    assert desk.looks(4) == [False, True, False, False]
    assert "No such file" in str(desk.file.state.fault)
    assert desk.ids == ["a"]


def test_secrets_in_a_faulty_file_are_not_shown(desk: Desk) -> None:
    desk.write("providers: [{id: a, api_key: sk-abcdefghijklmnop}, {: [")
    desk.looks()
    assert "abcdefghijklmnop" not in str(desk.file.state.fault)


def test_toml(tmp_path: Path) -> None:
    desk = Desk(tmp_path, '[[providers]]\nid = "a"\nendpoint = "http://h/v1"\n', "providers.toml")
    desk.write('[[providers]]\nid = "b"\nendpoint = "http://h/v1"\n')
    assert desk.looks() == [False, True]
    assert desk.ids == ["b"]
    desk.write('[[providers]\nid = "c"\n')
    assert desk.looks() == [False, True]
    assert desk.ids == ["b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(text("a", "b", "c"))),
    st.sampled_from(["", "\n", "  - {id: a, endpoint: 'http://h/v1'}\n"]),
)
def test_whatever_is_cut_it_is_refused_or_right_and_the_whole_is_taken(
    tmp_path: Path, cut: int, tail: str
) -> None:
    desk = Desk(tmp_path, text("x"))
    half = (text("a", "b", "c")[:cut] + tail).encode()
    desk.write(half)
    assert desk.look() is False, "a first look decides nothing"
    assert desk.look() is True
    try:
        right = parse_catalogue(half, desk.path)
    except ConfigError:
        assert desk.ids == ["x"]
        assert desk.file.state.fault
    else:
        assert desk.file.current == right
    desk.write(text("y", "z"))
    assert any(desk.looks())
    assert (desk.ids, desk.file.state.fault) == (["y", "z"], None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([text("a"), text("b"), text("a", "b"), "a: [", ""]), max_size=8), st.data())
def test_whatever_is_written_and_whenever_it_is_looked_at_what_is_in_force_is_a_good_one(
    tmp_path: Path, contents: list[str], data: st.DataObject
) -> None:
    desk = Desk(tmp_path)
    good = {version_of(text("a").encode())}
    for one in contents:
        desk.write(one)
        good |= {version_of(one.encode())} if one.startswith("providers") else set()
        desk.looks(data.draw(st.integers(0, 4)))
        assert desk.file.state.version in good
    desk.looks(3)
    last = (contents or [text("a")])[-1]
    if last.startswith("providers"):
        assert (desk.file.state.version, desk.file.state.fault) == (version_of(last.encode()), None)
    else:
        assert desk.file.state.fault


def test_without_a_good_file_there_is_nothing_to_begin_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        FleetFile(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        FleetFile.of(load_settings({"LLM_EDGE_CONFIG": str(tmp_path / "bad.yaml")}))


def test_the_watch_tells_of_each_change_once(desk: Desk) -> None:
    told: list[str] = []
    watch = FleetWatch(desk.file, lambda: told.append(desk.file.state.fault or desk.file.state.version))

    def looks() -> list[str]:
        told.clear()
        for _ in range(4):
            watch.look()
        return list(told)

    assert looks() == []
    desk.write(text("b"))
    assert looks() == [version_of(text("b").encode())]
    desk.write("[]")
    assert looks() == [f"{desk.path}: must be a mapping with the key `providers`"]
