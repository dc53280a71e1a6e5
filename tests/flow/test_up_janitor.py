"""What the janitor is told, and whom it ends: real processes, quickly."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.waiting import wait_for

from api.up import janitor
from api.up.guard import Guard, ending, leftovers
from api.up.janitor import Group


@contextmanager
def program(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            janitor.send(process.pid, signal.SIGKILL)


def group_of(process: subprocess.Popen[bytes], *, last: bool = False) -> Group:
    return Group(process.pid, "a part", janitor.born(process.pid), last)


groups = st.lists(st.builds(Group, st.integers(1, 2**22), st.text(), st.text(), st.booleans()))


@given(groups)
def test_what_is_told_is_understood(told: list[Group]) -> None:
    line = janitor.dump(told)
    assert line.count(b"\n") == 1
    assert janitor.parse(line) == told


@given(st.binary())
def test_a_damaged_line_names_nobody(line: bytes) -> None:
    assert janitor.parse(line) == []


def test_it_ends_a_group_with_all_of_its_members() -> None:
    with program("/bin/sh", "-c", "sleep 600 & echo started; wait") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert janitor.runs(process.pid)
        janitor.end_all([group_of(process)])
        assert not janitor.runs(process.pid)


def test_members_are_found_after_their_leader_is_gone() -> None:
    with program("/bin/sh", "-c", "sleep 600 & echo started") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.wait()
        assert janitor.runs(process.pid)
        janitor.end_all([Group(process.pid, "a part", "some time ago", last=False)])
        assert not janitor.runs(process.pid)


def test_it_kills_what_does_not_listen_once_the_grace_is_over() -> None:
    with program("/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        janitor.end_all([group_of(process)], grace_s=0.1)
        assert process.wait(5) == -signal.SIGKILL


def test_a_number_that_passed_to_a_stranger_is_left_alone() -> None:
    with program("sleep", "600") as process:
        janitor.end_all([Group(process.pid, "a part", "another birth", last=False)])
        assert process.poll() is None


def test_a_birth_tells_processes_apart_and_lasts() -> None:
    with program("sleep", "600") as process:
        assert janitor.born(process.pid) == janitor.born(process.pid) != ""
        assert janitor.born(process.pid) != janitor.born(os.getppid())
    assert janitor.born(process.pid) == ""


def test_a_clean_end_leaves_neither_janitor_nor_record(tmp_path: Path) -> None:
    guard = Guard(tmp_path / "lock", tmp_path / "parts.json")
    guard.start()
    with program("sleep", "600") as process:
        guard.publish([group_of(process)])
        assert leftovers(tmp_path / "parts.json") == [group_of(process)]
        guard.stop()
        assert process.poll() is None, "nobody was ended: the list was empty at the end"
    assert not guard.alive
    assert not (tmp_path / "parts.json").exists()
    assert not (tmp_path / "lock").exists()


def test_a_janitor_that_reads_nothing_is_replaced_and_never_blocks(tmp_path: Path) -> None:
    guard = Guard(tmp_path / "lock", tmp_path / "parts.json")
    guard.start()
    first = guard.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    many = [Group(2**22 + number, "nobody", "never", last=False) for number in range(5000)]
    guard.publish(many)
    guard.publish(many)
    wait_for(lambda: guard.tend() or "", 5, "another janitor")
    assert guard.pid != first
    guard.stop()


def test_leftovers_are_only_what_is_certainly_ours(tmp_path: Path) -> None:
    record = tmp_path / "parts.json"
    assert leftovers(record) == []
    record.write_bytes(
        janitor.dump([Group(os.getpid(), "x", "another birth", last=False), Group(1, "y", "", last=True)])
    )
    assert leftovers(record) == []


def test_endings_in_words() -> None:
    assert (ending(-9), ending(1)) == ("signal 9", "exit code 1")
