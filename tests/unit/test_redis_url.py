"""Redis' URLs and what is made of them: one record, then redis-py's words and kombu's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.broker import celery_settings
from shared.broker_redis import kombu_url
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.redis_client import connect
from shared.redis_url import SCHEMES, Credentials, parse_redis_url

WORD = "hush/:@#?%;"
QUOTED = "hush%2F%3A%40%23%3F%25%3B"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h:6379/0"),
        (f"redis://me:{QUOTED}@h:1/2", "redis://h:1/2"),
        (f"rediss://:{QUOTED}@[::1]:1", "rediss://[::1]:1/0"),
        ("redis://h?db=3", "redis://h:6379/3"),
        (f"unix://me:{QUOTED}@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis+socket:///run/redis.sock?virtual_host=1", "unix:///run/redis.sock?db=1"),
        (f"sentinel://me:{QUOTED}@a,b:2/1?master=m", "sentinel://a:26379,b:2/1?master=m"),
        ("sentinels://a?master=m", "sentinels://a:26379/0?master=m"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    server = parse_redis_url(url)
    assert server.shown == shown
    assert "hush" not in repr(server)
    if QUOTED in url:
        assert server.credentials.password == WORD


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://:hush@h", "must start with"),
        ("redis://:hu/sh@h", "%2F"),
        ("redis://:hu#sh@h", "%23"),
        ("redis://:hush@h:port", "host or port"),
        ("redis://:hush@a,b", "several servers"),
        ("sentinel://:hush@a;sentinel://b", "joined by commas"),
        ("sentinel://:hush@a/0", r"\?master=NAME"),
        ("redis://:hush@h/zero", "number of a database"),
        ("rediss://:hush@h?ssl_cert_reqs=none", "REDIS_TLS_VERIFY"),
        ("unix://:hush@", "no socket"),
    ],
)
def test_a_url_that_is_none_is_said_without_repeating_it(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_redis_url(url)
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match=words) as refused:
        load_settings({"REDIS_URL": url})
    assert "hush" not in str(refused.value)


@given(st.sampled_from(SCHEMES), st.text(max_size=40))
def test_whatever_stands_in_a_url_it_is_read_or_refused(scheme: str, rest: str) -> None:
    try:
        server = parse_redis_url(f"{scheme}://{rest}")
    except ValueError:
        return
    assert server.nodes or server.path


def settings(**changes: str) -> Settings:
    return load_settings(changes)


def test_user_and_password_come_from_variables_where_the_url_has_none(tmp_path: Path) -> None:
    file = tmp_path / "word"
    file.write_text("from-a-file\n")
    named = {"REDIS_USERNAME": "me", "REDIS_PASSWORD_FILE": str(file)}
    assert settings(REDIS_URL="redis://h", **named).redis.credentials == Credentials("me", "from-a-file")
    assert settings(REDIS_URL="redis://you:x@h", **named).redis.credentials == Credentials("you", "x")


def test_the_ledgers_password_is_never_sent_to_another_server() -> None:
    named = {"REDIS_URL": "redis://h/0", "REDIS_PASSWORD": "hush"}
    same, other = settings(BROKER_URL="redis://h/1", **named), settings(BROKER_URL="redis://other/0", **named)
    assert same.broker is not None
    assert same.broker.credentials.password == "hush"
    assert other.broker is not None
    assert not other.broker.credentials
    assert "hush" not in repr(same)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"REDIS_URL": "rediss://h", "REDIS_TLS_CERT": __file__}, "belong together"),
        ({"REDIS_URL": "rediss://h", "REDIS_TLS_CA": "/absent"}, "no file that can be read"),
        ({"REDIS_URL": "redis://h", "REDIS_TLS_CA": __file__}, "no URL asks for TLS"),
        ({"REDIS_PASSWORD": "a", "REDIS_PASSWORD_FILE": __file__}, "use one"),
        ({"REDIS_PASSWORD_FILE": "/absent"}, "cannot be read"),
        ({"REDIS_TLS_VERIFY": "maybe"}, "REDIS_TLS_VERIFY"),
    ],
)
def test_variables_that_do_not_fit_together_are_faults(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_settings(changes)


@pytest.mark.parametrize("role", ["api", "worker"])
def test_kombu_is_told_the_same_as_the_ledgers_client(role: str) -> None:
    """`__file__` stands for certificates: nothing is opened before a connection is made."""
    conf = settings(
        REDIS_URL="sentinels://a:1,b:2/3?master=m",
        REDIS_USERNAME="me",
        REDIS_PASSWORD=WORD,
        REDIS_SENTINEL_PASSWORD="other",
        REDIS_TLS_CA=__file__,
    )
    told = celery_settings(conf, "worker" if role == "worker" else "api")
    assert told["broker_url"] == f"sentinel://me:{QUOTED}@a:1/3;sentinel://me:{QUOTED}@b:2/3"
    tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": __file__}
    assert told["broker_use_ssl"] == tls
    options = told["broker_transport_options"]
    assert options["master_name"] == "m"
    assert options["sentinel_kwargs"].items() >= {"ssl": True, "password": "other", **tls}.items()


@pytest.mark.parametrize(
    ("verify", "reqs", "names"),
    [("full", "required", True), ("ca", "required", False), ("none", "none", False)],
)
def test_how_much_of_a_certificate_is_verified(verify: str, reqs: str, names: bool) -> None:
    conf = settings(REDIS_URL="rediss://h", REDIS_TLS_VERIFY=verify)
    found = connect(conf.redis, role="api").connection_pool.connection_kwargs
    assert (found["ssl_cert_reqs"], found["ssl_check_hostname"]) == (reqs, names)
    assert celery_settings(conf, "api")["broker_use_ssl"]["ssl_cert_reqs"] == reqs


@pytest.mark.parametrize("url", ["redis://h:1/2", "rediss://h:1/2", "unix:///run/redis.sock?db=2"])
def test_kombus_urls(url: str) -> None:
    socket = "redis+socket:///run/redis.sock?virtual_host=2"
    assert kombu_url(parse_redis_url(url)) == (socket if url.startswith("unix") else url)
