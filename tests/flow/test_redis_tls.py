"""Redis over TLS with certificates on both sides: the ledger's connections, and Celery's.

The Valkey of the wheel is built without TLS: these tests need a redis-server or valkey-server with it (Debian's have).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from support.authority import Authority, Signed
from support.batches import line, lines, outcomes, submit, wait_for_end
from support.edge import edge
from support.servers import running_server, system_server
from support.stack import free_port, running_stack

from shared.broker import celery_settings
from shared.config import load_settings

pytestmark = pytest.mark.verify


@dataclass(frozen=True)
class Secured:
    """A server that speaks nothing but TLS, to those who show a certificate."""

    port: int
    ca: Path
    mine: Signed

    @property
    def env(self) -> dict[str, str]:
        return {
            "REDIS_URL": f"rediss://localhost:{self.port}/0",
            "REDIS_TLS_CA": str(self.ca),
            "REDIS_TLS_CERT": str(self.mine.cert),
            "REDIS_TLS_KEY": str(self.mine.key),
        }

    def client(self) -> "redis.Redis":
        return redis.Redis(
            port=self.port,
            ssl=True,
            ssl_ca_certs=str(self.ca),
            ssl_certfile=str(self.mine.cert),
            ssl_keyfile=str(self.mine.key),
            ssl_cert_reqs="none",  # some tests' server shows a bad certificate
            ssl_check_hostname=False,
        )


@contextmanager
def secured(authority: Authority, theirs: Signed) -> Iterator[Secured]:
    server = Secured(free_port(), authority.ca, authority.sign("client", "a-client"))
    configuration = [
        *("port 0", f"tls-port {server.port}", f"tls-ca-cert-file {authority.ca}"),
        *(f"tls-cert-file {theirs.cert}", f"tls-key-file {theirs.key}", "tls-auth-clients yes"),
    ]
    with running_server("secured", configuration, client=server.client, program=system_server()):
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[Secured]:
    with secured(authority, authority.sign("server", "localhost")) as running:
        yield running


def test_a_batch_and_lone_jobs_run_over_tls_on_both_pools(server: Secured) -> None:
    with (
        running_stack(workers=1, part_env={"api": server.env, "worker": server.env}) as stack,
        stack.client as client,
    ):
        stack.start_worker("--pool", "threads")
        stack.simulator.patch(rules=[{"match": "^twice", "status": 503, "times": 2}])
        batch = submit(client, [*lines(500), *(line(f"twice-{n}", f"twice {n}") for n in range(10))])
        for n in range(5):
            assert client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f"ask {n}"}]
            )
        ended = wait_for_end(client, batch.id)
        assert all(row["error"] is None for row in outcomes(client, ended).values())


def test_celery_verifies_its_broker_as_the_ledger_does(server: Secured, tmp_path: Path) -> None:
    """kombu's own default for `rediss://` takes any certificate."""
    stranger = Authority(tmp_path, "stranger")
    for env, fits in ((server.env, True), ({**server.env, "REDIS_TLS_CA": str(stranger.ca)}, False)):
        app = Celery(set_as_current=False)
        app.conf.update(celery_settings(load_settings(env), "api"))
        with app.connection_for_write() as connection:
            if fits:
                connection.ensure_connection(max_retries=1, timeout=5)
            else:
                with pytest.raises(OperationalError, match="certificate verify failed"):
                    connection.ensure_connection(max_retries=1, timeout=5)


PARTS = (("api",), ("worker",), ("worker", "--pool", "threads"), ("config", "check"), ("up", "--port", "0"))


def assert_refused(folder: Path, env: dict[str, str], words: str) -> None:
    """Each part ends at once, with exit code 1 and these words."""
    (folder / "providers.yaml").write_text("providers: [{id: a, endpoint: 'http://127.0.0.1:1/v1'}]")
    for part in PARTS:
        command = edge(
            folder, *part, env={**os.environ, **env, "SERVER_PORT": str(free_port())}, timeout_s=15
        )
        said = command.out + command.err
        assert command.process.returncode == 1, (part, said)
        assert words in said, part
        assert "Traceback" not in said


def test_a_server_of_another_authority_is_refused(server: Secured, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    assert_refused(tmp_path, {**server.env, "REDIS_TLS_CA": str(stranger.ca)}, "Set REDIS_TLS_CA")


def test_a_missing_client_certificate_is_said(server: Secured, tmp_path: Path) -> None:
    env = {**server.env, "REDIS_TLS_CERT": "", "REDIS_TLS_KEY": ""}
    assert_refused(tmp_path, env, "Redis wants a client certificate. Set REDIS_TLS_CERT")


def test_a_url_without_tls_is_said(server: Secured, tmp_path: Path) -> None:
    assert_refused(tmp_path, {"REDIS_URL": f"redis://127.0.0.1:{server.port}"}, "Use a rediss://")


def test_a_client_certificate_of_another_authority_is_said(server: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path, "stranger").sign("other", "a-client")
    env = {**server.env, "REDIS_TLS_CERT": str(other.cert), "REDIS_TLS_KEY": str(other.key)}
    assert_refused(tmp_path, env, "Redis does not accept the client certificate")


def test_a_certificate_for_another_name_is_refused_unless_names_are_not_asked_for(
    authority: Authority, tmp_path: Path
) -> None:
    with secured(authority, authority.sign("server", "another.example")) as server:
        assert_refused(tmp_path, server.env, "was made out to another name")
        checked = edge(
            tmp_path, "config", "check", env={**os.environ, **server.env, "REDIS_TLS_VERIFY": "ca"}
        )
        assert "another name" not in checked.out + checked.err
        assert "append-only" in checked.out + checked.err, "it was reached, and looked at"


def test_a_certificate_that_has_expired_is_said(authority: Authority, tmp_path: Path) -> None:
    with secured(authority, authority.sign("server", "localhost", expired=True)) as server:
        assert_refused(tmp_path, server.env, "has expired")
