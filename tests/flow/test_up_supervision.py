"""`up` keeps its parts alive and takes them down: real processes, a real Valkey, stand-ins for API and workers."""

import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
from support.up_run import UpRun, processes_in, running_up
from support.valkey import running_valkey
from support.waiting import wait_for


def gone(home: Path, timeout_s: float = 10.0) -> None:
    wait_for(lambda: not processes_in(home), timeout_s, f"the end of {processes_in(home)}")


def restarted(up: UpRun, name: str, before: int) -> int:
    return wait_for(lambda: (now := up.part(name)) and now != before and now, 10, f"another {name}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        assert len(processes_in(tmp_path)) == 9, (
            "up, janitor, valkey, simulator, api, two workers with a child each"
        )
        up.signal(number)
        assert up.wait() == 0
        assert processes_in(tmp_path) == []
        assert up.lines[-1] == "stopped"
        assert not (up.folder / "parts.json").exists()


def test_a_signal_before_it_is_ready_ends_it_too(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_said("starting the API")
        up.signal(signal.SIGTERM)
        assert up.wait() == 0
        assert processes_in(tmp_path) == []


def test_parts_that_are_killed_are_started_again_with_a_word(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        with up.client() as client:
            client.set("kept", "yes")
        child = psutil.Process(up.part("worker-2")).children()[0]
        for name in ("valkey", "simulator", "api", "worker-2"):
            before = up.part(name)
            os.kill(before, signal.SIGKILL)
            restarted(up, name, before)
            up.wait_said(f"{name} ended (signal 9); started again")
        wait_for(
            lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5, "its child's end"
        )
        with up.client() as client:
            wait_for(lambda: answered(client), 5, "the server on its old port, with its old password")
            assert client.get("kept") == "yes"
        up.signal(signal.SIGTERM)
        assert up.wait() == 0
        assert processes_in(tmp_path) == []


def answered(client: "object") -> bool:
    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001  not yet
        return False


def test_up_killed_leaves_nothing_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        with up.client() as client:
            client.set("kept", "yes")
        up.signal(signal.SIGKILL)
        up.wait()
        with running_up(tmp_path) as again:  # at once: it waits for the janitor
            again.wait_ready()
            with again.client() as client:
                assert client.get("kept") == "yes"
            again.signal(signal.SIGTERM)
            assert again.wait() == 0
        gone(tmp_path)


def test_up_killed_with_workers_that_do_not_listen(tmp_path: Path) -> None:
    with running_up(tmp_path, environ={"STANDIN_STUBBORN": "1"}) as up:
        up.wait_ready()
        up.signal(signal.SIGKILL)
        up.wait()
        left = {process.pid for process in processes_in(tmp_path)}
        with running_up(tmp_path) as again:  # the folder is not free before the janitor is done
            again.wait_said("waiting for what an earlier run left")
            again.wait_ready()
            assert not again.said("ended")
            assert not left & {process.pid for process in processes_in(tmp_path)}


def test_up_killed_after_its_janitor_was_killed(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        before = up.janitor()
        os.kill(before, signal.SIGKILL)
        up.wait_said("janitor ended (signal 9); started again")
        assert up.janitor() not in {0, before}
        up.signal(signal.SIGKILL)
        up.wait()
        gone(tmp_path)


def test_signals_do_not_disturb_the_janitor(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(up.janitor(), number)
        up.signal(signal.SIGKILL)
        up.wait()
        gone(tmp_path)


def test_what_outlived_up_and_janitor_is_ended_by_the_next(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        janitor = up.janitor()
        os.kill(janitor, signal.SIGSTOP)
        up.signal(signal.SIGKILL)
        up.wait()
        os.kill(janitor, signal.SIGKILL)
        left = {process.pid for process in processes_in(tmp_path)}
        assert len(left) == 7
        with running_up(tmp_path) as again:
            again.wait_said("ended 5 processes that an earlier run had left behind")
            again.wait_ready()
            assert not left & {process.pid for process in processes_in(tmp_path)}


@pytest.mark.parametrize("name", ["valkey", "worker-1"])
def test_up_killed_between_start_and_registration_of_a_part(tmp_path: Path, name: str) -> None:
    with running_up(tmp_path, environ={"STANDIN_DIE_AT_GATE": name}) as up:
        assert up.wait() == -signal.SIGKILL
        gone(tmp_path)


def test_a_second_up_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        with running_up(tmp_path) as second:
            assert second.wait() == 1
            assert f"in use by another `llm-edge up` (pid {up.pid})" in second.output
        assert up.part("valkey"), "the first is undisturbed"


def test_a_taken_port_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_up(tmp_path, "--port", str(port)) as up:
            assert up.wait() == 1
            assert f"port {port} on 127.0.0.1 is in use" in up.output
        assert processes_in(tmp_path) == []


def test_a_part_that_cannot_start_ends_it_with_the_end_of_its_log(tmp_path: Path) -> None:
    with running_up(tmp_path, environ={"STANDIN_BROKEN": "worker"}) as up:
        assert up.wait(40) == 1
        assert "does not start: it ended with exit code 1" in up.output
        assert len(up.all_said("started again")) >= 4
        assert "has no luck today" in up.output
        assert processes_in(tmp_path) == []


def test_a_stubborn_worker_is_killed_after_its_grace(tmp_path: Path) -> None:
    with running_up(tmp_path, "--grace", "0.5", environ={"STANDIN_STUBBORN": "1"}) as up:
        up.wait_ready()
        up.signal(signal.SIGTERM)
        assert up.wait() == 0
        assert "worker-1 did not end within its grace: killed" in up.output
        assert processes_in(tmp_path) == []


def test_a_second_ctrl_c_shortens_a_long_grace(tmp_path: Path) -> None:
    with running_up(tmp_path, "--grace", "600", environ={"STANDIN_STUBBORN": "1"}) as up:
        up.wait_ready()
        up.signal(signal.SIGINT)
        up.wait_said("stopping")
        up.signal(signal.SIGINT)
        assert up.wait(15) == 0
        assert processes_in(tmp_path) == []


def test_a_server_of_ones_own_is_used_and_left_alone(tmp_path: Path) -> None:
    with running_valkey() as own:
        with running_up(tmp_path, environ={"REDIS_URL": own.url}) as up:
            up.wait_ready()
            assert up.part("valkey") == 0
            assert own.password not in up.output
            up.signal(signal.SIGTERM)
            assert up.wait() == 0
        with own.client(decode_responses=True) as client:
            assert sorted(client.keys("*")) == ["beat:worker-1", "beat:worker-2"]


def test_a_server_that_cannot_be_reached_is_said_without_its_password(tmp_path: Path) -> None:
    with running_up(tmp_path, environ={"REDIS_URL": "redis://:hush@127.0.0.1:1/0"}) as up:
        assert up.wait() == 1
        assert "redis://127.0.0.1:1/0: cannot be reached" in up.output
        assert "hush" not in up.output


def test_what_it_says_and_what_stays_private(tmp_path: Path) -> None:
    with running_up(tmp_path, environ={"OPENAI_API_KEY": "sk-secret"}) as up:
        up.wait_ready()
        assert "SIMULATED" in up.output
        assert "OPENAI_API_KEY found, but not used until `llm-edge init`" in up.output
        assert "sk-secret" not in up.output
        assert up.folder.stat().st_mode & 0o777 == 0o700
        for name in ("password", "valkey.conf"):
            assert (up.folder / name).stat().st_mode & 0o777 == 0o600
        password = (up.folder / "password").read_text().strip()
        assert all(password not in " ".join(process.cmdline()) for process in processes_in(tmp_path))
        assert password not in up.output
        with up.client() as client:
            config = client.config_get()
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }
        assert {name: config[name] for name in wanted} == wanted
        assert int(config["maxmemory"]) > 0


def test_a_reader_that_goes_away_does_not_stop_it(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        up.wait_ready()
        up.stop_reading()
        before = up.part("worker-1")
        os.kill(before, signal.SIGKILL)
        restarted(up, "worker-1", before)
        up.signal(signal.SIGTERM)
        assert up.wait() == 0
        assert processes_in(tmp_path) == []
