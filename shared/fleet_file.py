"""The providers file of a running process: which contents are in force, and what is wrong with those that lie there now.

A change is taken when two looks in a row have found the same contents, so that a file met in the middle of its writing is not
taken for a whole one; one that lifts an owner's quota has to lie there for longer, since half a file may well be a valid one without.
What is no providers file is refused, and what was in force stays so.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from shared.catalogue import EVERYBODY, Catalogue, fleet_path, parse_catalogue
from shared.clock import Clock, SystemClock
from shared.config import Settings
from shared.errors import ConfigError
from shared.jobs import FileState
from shared.redact import redact

RACY_S = 2.0
"""Contents written so shortly before a look may be followed by others with the same time stamp (FAT's are even), so it is read again."""

QUOTA_LIFTED_S = 10.0
"""Contents without a quota that is in force must have been the same for so long."""

_FAULT_CHARS = 500

Prepare = Callable[[Catalogue], None]
"""May raise ConfigError."""

Stamp = tuple[int, int, int]
"""What tells one file from another without reading it: mtime in ns, size, inode. Symlinks are followed."""


class _InForce(msgspec.Struct, frozen=True):
    catalogue: Catalogue
    state: FileState


class FleetFile:
    """What `look` finds may be read from any thread; `look` itself belongs to one."""

    def __init__(self, path: Path, clock: Clock | None = None, prepare: Prepare = lambda _: None) -> None:
        """`prepare` is done with a catalogue before it is in force, and may refuse it. Raises ConfigError where there is no usable file to begin with."""
        self.path = path.absolute()
        self._prepare = prepare
        self._clock = clock or SystemClock()
        self._settled: Stamp | None = None
        contents = _contents(self.path)
        if isinstance(contents, str):
            raise ConfigError([contents])
        self._seen = self._decided = version_of(contents)
        self._seen_at = self._clock.now()
        self._take(parse_catalogue(contents, path))

    @classmethod
    def of(cls, settings: Settings, prepare: Prepare = lambda _: None) -> "FleetFile":
        """The one this process is to use. Raises ConfigError where there is none, or a faulty one."""
        return cls(fleet_path(settings), prepare=prepare)

    @property
    def current(self) -> Catalogue:
        return self._in_force.catalogue

    @property
    def state(self) -> FileState:
        """`version` is that of the contents in force; `fault` says why those that lie there now are not."""
        return self._in_force.state

    def look(self) -> bool:
        """Whether the state is another one now. Costs a `stat` where the file has long been what it is."""
        stamp = _stamp(self.path)
        if stamp is not None and stamp == self._settled:
            return False
        contents = _contents(self.path)
        name = contents if isinstance(contents, str) else version_of(contents)
        if name != self._seen:
            self._seen, self._seen_at = name, self._clock.now()
            return False
        if name != self._decided and not self._is_ripe(contents):
            return False
        self._settled = stamp if stamp is not None and self._is_old(stamp) else None
        if name == self._decided:
            return False
        self._decided = name
        self._decide(contents, name)
        return True

    def _is_old(self, stamp: Stamp) -> bool:
        return self._clock.now() - stamp[0] / 1e9 > RACY_S

    def _is_ripe(self, contents: bytes | str) -> bool:
        """Two looks have found it. Where it lifts a quota that is not enough."""
        owners = self.current.owners
        if not owners or isinstance(contents, str) or self._clock.now() - self._seen_at >= QUOTA_LIFTED_S:
            return True
        try:
            fresh = parse_catalogue(contents, self.path).owners
            return EVERYBODY in fresh or owners.keys() <= fresh.keys()
        except ConfigError:
            return True  # to be refused

    def _decide(self, contents: bytes | str, name: str) -> None:
        if isinstance(contents, str):
            self._refuse(contents)
        elif name == self.state.version:
            self._in_force = _InForce(self.current, msgspec.structs.replace(self.state, fault=None))
        else:
            try:
                self._take(parse_catalogue(contents, self.path))
            except ConfigError as exc:
                self._refuse("; ".join(exc.faults))

    def _take(self, catalogue: Catalogue) -> None:
        self._prepare(catalogue)
        state = FileState(version=self._decided, loaded_at=self._clock.now())
        self._in_force = _InForce(catalogue, state)

    def _refuse(self, why: str) -> None:
        shown = redact(why)[:_FAULT_CHARS]
        self._in_force = _InForce(self.current, msgspec.structs.replace(self.state, fault=shown))


def version_of(contents: bytes) -> str:
    """The first 12 hex digits of its SHA-256: `sha256sum providers.yaml` shows the same."""
    return hashlib.sha256(contents).hexdigest()[:12]


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _contents(path: Path) -> bytes | str:
    """The file's bytes, or why there are none."""
    try:
        return path.read_bytes()
    except OSError as exc:
        return f"{path}: {exc.strerror}"
