"""The folder of the embedded stack (`.llm-edge`): who holds it, its password, its logs. Nobody else may read it."""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from api.up.errors import UpError
from api.up.guard import leftovers
from api.up.janitor import end_all

CLEANING_WAIT_S = 20.0
"""How long a janitor may take at most to end what a killed `up` left."""
_TAKEOVER_WAIT_S = 1.0
"""Between the kill of an `up` and its janitor's word in the lock file."""
_POLL_S = 0.1
MAX_LOG_BYTES = 50 * 1024 * 1024


class Folder:
    """One embedded stack's place on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.data = self.path / "valkey"
        self.logs = self.path / "logs"
        self.lock_file = self.path / "lock"
        self.record = self.path / "parts.json"
        self.server_config = self.path / "valkey.conf"
        self.providers = self.path / "providers.yaml"

    def prepare(self) -> None:
        """Make the folder, closed to others. Raises UpError where it cannot be, or belongs to something else."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_mode & 0o077:
                self._close_to_others()
            self.data.mkdir(mode=0o700, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            (self.path / ".gitignore").write_text("*\n", encoding="ascii")  # a password must not be committed
        except OSError as exc:
            raise UpError(
                f"cannot use the folder {self.path}: {exc.strerror}. Choose another with --dir."
            ) from exc

    def _close_to_others(self) -> None:
        if any(self.path.iterdir()) and not self.lock_file.exists():
            raise UpError(
                f"{self.path} is open to other users and holds other files. "
                "Choose a folder of its own with --dir: it is made where there is none."
            )
        self.path.chmod(0o700)

    def lock(self, say: Callable[[str], None]) -> int:
        """Hold the folder; the descriptor of the lock. Waits for a janitor that still cleans up.

        Raises UpError where another `up` holds it, naming its pid.
        """
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        started_s = time.monotonic()
        told = False
        while not _try_lock(handle):
            holder = _holder(handle)
            waited_s = time.monotonic() - started_s
            if waited_s > (_TAKEOVER_WAIT_S if _is_up(holder) else CLEANING_WAIT_S):
                os.close(handle)
                raise UpError(
                    f"{self.path} is in use by another `llm-edge up` ({holder}). "
                    "Stop that one first, or choose another folder with --dir."
                )
            if not told and waited_s > _TAKEOVER_WAIT_S:
                say(f"waiting for what an earlier run left in {self.path} to end ({holder})")
                told = True
            time.sleep(_POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()}\n".encode(), 0)
        return handle

    def end_leftovers(self) -> int:
        """Ends parts that outlived both their `up` and its janitor; how many there were."""
        groups = leftovers(self.record)
        end_all(groups)
        return len(groups)

    def password(self) -> str:
        """The server's password: made once, then kept."""
        file = self.path / "password"
        if not file.exists() or not file.read_text(encoding="ascii").strip():
            write_private(file, secrets.token_hex(24) + "\n")
        return file.read_text(encoding="ascii").strip()

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def trim_log(self, part: str) -> None:
        """Keeps a part's log below `MAX_LOG_BYTES`, and one older file beside it. Its writer appends, so goes on undisturbed."""
        log = self.log(part)
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)

    def last_lines(self, part: str, count: int = 15) -> str:
        """The end of a part's log, for a message."""
        try:
            with self.log(part).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 8192))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in lines[-count:])


def write_private(file: Path, text: str) -> None:
    """Replace the file by one that only its owner can read; never half written."""
    fresh = file.with_name(file.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    fresh.replace(file)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:  # some network file systems have no locks
        raise UpError(
            f"the folder cannot be locked ({exc.strerror}). Choose one on a local disk with --dir."
        ) from exc
    return True


def _holder(handle: int) -> str:
    """`pid 123` of an `up`, `cleaning 123` of a janitor, or a word where it has not signed yet."""
    return os.pread(handle, 100, 0).decode("ascii", "replace").strip() or "just starting"


def _is_up(holder: str) -> bool:
    """Whether the holder is an `up` that still runs, not one that was killed or a janitor."""
    word, _, number = holder.partition(" ")
    if word != "pid" or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
