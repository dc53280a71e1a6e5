"""Who may call: owners, and the hashes of their keys. Pure but for `load_keyring`, which reads a file.

A key is 256 random bits, so its plain SHA-256 tells nothing about it: slow hashes are for passwords, which can be guessed.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator

import msgspec

from shared.config import Settings
from shared.errors import ConfigError

DEFAULT_OWNER = "default"
"""Everything belongs to this owner as long as there are no keys."""

# shorter than a key or a hash: neither can pass for an owner, and so be shown
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NAMES = "an owner's name is 1 to 40 letters, digits, '.', '_' or '-', and begins with a letter or digit"
_EMPTY = hashlib.sha256(b"").hexdigest()
_KEY_BYTES = 32
_VARIABLE = "LLM_EDGE_API_KEYS"


class Caller(msgspec.Struct, frozen=True):
    """On whose behalf a request is made, and whether it may look at the fleet as a whole."""

    owner: str
    admin: bool = False


class Entry(msgspec.Struct, frozen=True):
    """A key's SHA-256, and whose it is."""

    digest: bytes
    caller: Caller


class Keyring(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        """Whether keys are asked for at all."""
        return bool(self.entries)

    def caller_of(self, key: str) -> Caller | None:
        """Whose key it is. It takes as long for a right key as for a wrong one, wherever in the list it stands."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for entry in self.entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry.caller
        return found

    def __str__(self) -> str:
        """How many there are, for people: `3 keys of 2 owners, 1 of them for administration`."""
        owners = {entry.caller.owner for entry in self.entries}
        admins = sum(entry.caller.admin for entry in self.entries)
        return (
            f"{len(self.entries)} key{'s' * (len(self.entries) != 1)} of {len(owners)} owner{'s' * (len(owners) != 1)},"
            f" {admins or 'none'} of them for administration"
        )


def new_key() -> str:
    """`le-` and 256 random bits in URL-safe characters."""
    return f"le-{secrets.token_urlsafe(_KEY_BYTES)}"


def entry_of(owner: str, key: str, *, admin: bool = False) -> str:
    """The key's entry for LLM_EDGE_API_KEYS: `owner:sha256-hex[:admin]`. Raises ConfigError for a name that is none."""
    if not _OWNER.fullmatch(owner):
        raise ConfigError([f"OWNER: {_NAMES}"])
    return f"{owner}:{hashlib.sha256(key.encode()).hexdigest()}{':admin' * admin}"


def load_keyring(settings: Settings) -> Keyring:
    """The keys of LLM_EDGE_API_KEYS and of the file that LLM_EDGE_API_KEYS_FILE names; none where neither is set.

    Raises ConfigError with every fault. A source that is set but holds no key is one: it must not open the door to all.
    """
    sources = []
    if settings.api_keys is not None:
        sources.append((_VARIABLE, settings.api_keys))
    if (path := settings.api_keys_file) is not None:
        try:
            sources.append((f"{_VARIABLE}_FILE: {path}", path.read_text(encoding="utf-8")))
        except OSError as exc:
            raise ConfigError([f"{_VARIABLE}_FILE: {path}: {exc.strerror}"]) from exc
        except UnicodeDecodeError as exc:
            raise ConfigError([f"{_VARIABLE}_FILE: {path}: not UTF-8"]) from exc
    return parse_keyring(sources)


def parse_keyring(sources: list[tuple[str, str]]) -> Keyring:
    """From (name, text) pairs: entries by commas or lines, lines with `#` being comments.

    Raises ConfigError with every fault; it names an entry's number and owner, never its hash, nor what stands in its place.
    """
    found: dict[bytes, str] = {}
    entries, faults = [], []
    for where, text in sources:
        words = list(_words(text))
        if not words:
            faults.append(f"{where}: holds no entry; unset it, or make one with `llm-edge keys new OWNER`")
        for number, word in enumerate(words, 1):
            owner, _, rest = word.partition(":")
            named = _OWNER.fullmatch(owner) is not None and bool(rest)
            place = f"{where}: entry {number}{f' ({owner})' if named else ''}"
            try:
                entry = _entry(owner, rest)
            except ValueError as exc:
                faults.append(f"{place}: {exc}")
                continue
            if entry.digest in found:
                faults.append(f"{place}: the same key stands in {found[entry.digest]}")
                continue
            found[entry.digest] = place
            entries.append(entry)
    if faults:
        raise ConfigError(faults)
    return Keyring(tuple(entries))


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            yield from filter(None, (word.strip() for word in line.split(",")))


def _entry(owner: str, rest: str) -> Entry:
    digest, colon, flag = rest.partition(":")
    if not rest:
        raise ValueError(
            "must be owner:sha256-hex or owner:sha256-hex:admin, as `llm-edge keys new` prints it"
        )
    if not _OWNER.fullmatch(owner):
        raise ValueError(_NAMES)
    if not _DIGEST.fullmatch(digest):
        raise ValueError(
            "after the owner must come the 64 hex digits of the key's SHA-256, not the key itself"
        )
    if digest.lower() == _EMPTY:
        raise ValueError("this is the hash of an empty key")
    if colon and flag != "admin":
        raise ValueError("after the hash only ':admin' may come")
    return Entry(bytes.fromhex(digest), Caller(owner, admin=bool(colon)))
