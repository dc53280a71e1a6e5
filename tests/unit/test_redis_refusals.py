"""What OpenSSL, Redis and redis-py say, and what we make of it."""

import pytest
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  redis-py's name
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from shared.errors import StoreRefusedError, StoreUnavailableError
from shared.redis_client import store_errors
from shared.redis_refusals import refusal


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate in chain", "REDIS_TLS_CA"),
        ("CERTIFICATE_VERIFY_FAILED] Hostname mismatch, certificate is not valid for 'h'", "another name"),
        ("CERTIFICATE_VERIFY_FAILED] certificate has expired", "expired"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "wants a client"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "does not accept the client certificate"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS"),
        ("[SSL] PEM lib (_ssl.c:3900)", "holds no certificate or key"),
        ("[SSL: KEY_VALUES_MISMATCH] key values mismatch", "do not belong together"),
    ],
)
def test_tls(said: str, meaning: str) -> None:
    assert meaning in (refusal(ConnectionError(f"Error 1 connecting to h:1. {said}")) or "")


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (AuthenticationError("invalid username-password pair or user is disabled."), "user name or password"),
        (ResponseError("WRONGPASS invalid username-password pair"), "user name or password"),
        (NoPermissionError("User llm has no permissions to run the 'hset' command"), "the command HSET"),
        (NoPermissionError("No permissions to access a key"), "a key"),
        (NoPermissionError("No permissions to access a channel"), "a pub/sub channel"),
        (
            ResponseError("ACL failure in script: No permissions to run the 'zadd' command"),
            "the command ZADD",
        ),
    ],
)
def test_users_and_permissions_without_the_users_name(error: RedisError, meaning: str) -> None:
    with pytest.raises(StoreRefusedError, match=meaning) as caught, store_errors():
        raise error
    assert "llm has" not in caught.value.message


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ReadOnlyError("You can't write against a read only replica."), "failover"),
        (ResponseError("Error running script: @user_script:1: -READONLY You can't write"), "failover"),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), "min-replicas-to-write"),
        (ResponseError("MISCONF Errors writing to the AOF file"), "its disk"),
        (ConnectionError("Error 111 connecting to h:1. Connection refused."), "cannot be reached"),
    ],
)
def test_what_passes_is_unavailable_and_not_refused(error: RedisError, meaning: str) -> None:
    with pytest.raises(StoreUnavailableError, match=meaning) as caught, store_errors():
        raise error
    assert not isinstance(caught.value, StoreRefusedError)


def test_a_fault_of_ours_stays_one() -> None:
    with pytest.raises(ResponseError, match="wrong number"), store_errors():
        raise ResponseError("wrong number of arguments for 'get' command")
