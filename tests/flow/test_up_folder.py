"""The folder of the embedded stack: private, held by one, with bounded logs."""

import os
from pathlib import Path

import pytest

from api.up import folder as folder_module
from api.up.errors import UpError
from api.up.folder import Folder, write_private


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "deep" / ".llm-edge")
    made.prepare()
    return made


def test_it_is_made_and_closed_to_others(folder: Folder) -> None:
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / ".gitignore").read_text() == "*\n"


def test_an_empty_one_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Folder(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_one_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(UpError, match="holds other files"):
        Folder(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_one_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UpError, match="Choose another with --dir"):
        Folder(tmp_path / "file" / ".llm-edge").prepare()


def test_the_password_is_made_once(folder: Folder) -> None:
    first = folder.password()
    assert len(first) >= 32
    assert folder.password() == first
    assert (folder.path / "password").stat().st_mode & 0o777 == 0o600


def test_an_empty_password_file_is_filled(folder: Folder) -> None:
    (folder.path / "password").touch()
    assert folder.password()


def test_only_one_holds_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_TAKEOVER_WAIT_S", 0.05)
    said: list[str] = []
    first = folder.lock(said.append)
    with pytest.raises(UpError, match=rf"\(pid {os.getpid()}\)"):
        folder.lock(said.append)
    os.close(first)
    os.close(folder.lock(said.append))
    assert said == []


def test_a_janitor_at_work_is_waited_for_in_vain_only_so_long(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_TAKEOVER_WAIT_S", 0.05)
    monkeypatch.setattr(folder_module, "CLEANING_WAIT_S", 0.3)
    said: list[str] = []
    first = folder.lock(said.append)
    folder.lock_file.write_text("cleaning 4711\n")
    with pytest.raises(UpError, match="cleaning 4711"):
        folder.lock(said.append)
    os.close(first)
    assert len(said) == 1
    assert "cleaning 4711" in said[0]


def test_a_long_log_is_cut_while_its_writer_goes_on(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_LOG_BYTES", 10)
    with folder.log("api").open("ab", buffering=0) as writer:
        writer.write(b"eleven bytes")
        folder.trim_log("api")
        writer.write(b"more")
    folder.trim_log("api")
    assert folder.log("api").read_bytes() == b"more"
    assert (folder.logs / "api.log.1").read_bytes() == b"eleven bytes"


def test_the_end_of_a_log(folder: Folder) -> None:
    assert folder.last_lines("api") == ""
    folder.log("api").write_text("\n".join(str(number) for number in range(10_000)))
    assert folder.last_lines("api", 2) == "  9998\n  9999"


def test_private_files_are_private_from_the_start_and_replace_others(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
