"""Keys: what opens, what does not, and what a faulty entry is told without showing anything."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.keyring import Caller, Keyring, entry_of, load_keyring, new_key, parse_keyring
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.redact import KEY, redact

OWNERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", fullmatch=True)
KEYS = st.text(min_size=1, max_size=60)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def parsed(text: str) -> Keyring:
    return parse_keyring([("KEYS", text)])


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    return caught.value.faults


@given(st.dictionaries(KEYS, st.tuples(OWNERS, st.booleans()), min_size=1, max_size=6), KEYS, st.data())
def test_each_key_is_its_owners_and_no_other_text_is_a_key(
    given: dict[str, tuple[str, bool]], other: str, data: st.DataObject
) -> None:
    between = data.draw(st.sampled_from([",", ", ", "\n", " ,\n# a comment, with a comma\n"]))
    ring = parsed(between.join(entry_of(owner, key, admin=admin) for key, (owner, admin) in given.items()))
    for key, (owner, admin) in given.items():
        assert ring.caller_of(key) == Caller(owner, admin)
        assert ring.caller_of(digest(key)) is None, "a hash that was seen somewhere opens nothing"
    assert (ring.caller_of(other) is None) == (other not in given)
    assert ring.caller_of("") is None


def test_a_new_key_is_long_random_and_known_to_the_redactor() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("le-")
        assert len(key) == 3 + 43  # 256 bits
        assert redact(f"sent {key}.") == f"sent {KEY}."


GOOD = digest("k")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" ", "KEYS: holds no entry"),
        (",,", "KEYS: holds no entry"),
        ("# nothing\n", "KEYS: holds no entry"),
        ("le-" + "x" * 43, "KEYS: entry 1: must be owner:sha256-hex"),
        (f"{GOOD}", "KEYS: entry 1: must be owner:sha256-hex"),
        (f"{GOOD}:alice", "KEYS: entry 1: an owner's name is"),
        (f":{GOOD}", "KEYS: entry 1: an owner's name is"),
        (f"a b:{GOOD}", "KEYS: entry 1: an owner's name is"),
        (f"{'a' * 41}:{GOOD}", "KEYS: entry 1: an owner's name is"),
        ("alice:le-secret", "KEYS: entry 1 (alice): after the owner must come the 64 hex digits"),
        (f"alice:{GOOD[:-1]}", "KEYS: entry 1 (alice): after the owner must come the 64 hex digits"),
        (f"alice:{GOOD}:", "KEYS: entry 1 (alice): after the hash only ':admin'"),
        (f"alice:{GOOD}:root", "KEYS: entry 1 (alice): after the hash only ':admin'"),
        (f"alice:{GOOD}:admin:x", "KEYS: entry 1 (alice): after the hash only ':admin'"),
        (f"alice:{digest('')}", "KEYS: entry 1 (alice): this is the hash of an empty key"),
        (
            f"alice:{GOOD},bob:{GOOD.upper()}",
            "KEYS: entry 2 (bob): the same key stands in KEYS: entry 1 (alice)",
        ),
    ],
)
def test_a_bad_entry_is_named_by_number_and_owner_never_by_its_hash(text: str, expected: str) -> None:
    (fault,) = faults(text)
    assert fault.startswith(expected)
    for private in (GOOD, GOOD.upper(), GOOD[:-1], "secret", "x" * 43, "root"):
        assert private not in fault


def test_every_bad_entry_is_named_at_once() -> None:
    found = faults(f"alice:{GOOD},bob:short,carol:{digest('c')}:boss")
    assert [fault.split(":")[1] for fault in found] == [" entry 2 (bob)", " entry 3 (carol)"]


def settings(tmp_path: Path, *, env: str | None = None, file: str | None = None) -> Settings:
    environ = {} if env is None else {"LLM_EDGE_API_KEYS": env}
    if file is not None:
        (tmp_path / "keys").write_text(file)
        environ["LLM_EDGE_API_KEYS_FILE"] = str(tmp_path / "keys")
    return load_settings(environ)


def test_no_keys_at_all(tmp_path: Path) -> None:
    assert not load_keyring(settings(tmp_path))
    assert not load_keyring(settings(tmp_path, env="")), "an empty variable is an absent one"


def test_variable_and_file_count_together(tmp_path: Path) -> None:
    ring = load_keyring(
        settings(
            tmp_path,
            env=f"alice:{digest('a')}",
            file=f"# ops\nbob:{digest('b')}:admin\n\nbob:{digest('c')}\n",
        )
    )
    assert str(ring) == "3 keys of 2 owners, 1 of them for administration"
    assert [ring.caller_of(key) for key in "abc"] == [
        Caller("alice"),
        Caller("bob", admin=True),
        Caller("bob"),
    ]


@pytest.mark.parametrize("file", ["", "# to be done\n"])
def test_a_file_that_holds_no_key_does_not_open_the_door(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigError, match="holds no entry"):
        load_keyring(settings(tmp_path, file=file))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    found = settings(tmp_path, file="")
    (tmp_path / "keys").unlink()
    with pytest.raises(ConfigError, match="keys: No such file"):
        load_keyring(found)
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_keyring(found)


def test_settings_never_show_hashes_or_tokens() -> None:
    found = load_settings({"LLM_EDGE_API_KEYS": f"alice:{GOOD}", "METRICS_TOKEN": "quite-secret"})
    assert GOOD not in repr(found)
    assert "quite-secret" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        load_settings({"METRICS_TOKEN": "short", "METRICS_PORT": "x"})
    assert "short" not in str(caught.value).replace("shorter", "")
    assert len(caught.value.faults) == 2
