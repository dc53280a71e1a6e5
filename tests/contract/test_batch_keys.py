"""What ops/docs/scaling.md says of keys: a batch's own follow from its id, and beside them each script touches the fleet's that the page lists."""

import re
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from support.key_witness import most_batches, touched, witnessed
from support.ledgers import index, outcome, spec, worker
from support.stores import really_wait

from shared import scripts
from shared.catalogue import Breaker, Provider
from shared.gate import Ask, Flight, Report, candidate_of
from shared.idempotency import Once
from shared.jobs import BatchSpec, Chore, Claim, Fault, Split
from shared.limits import Kind, Limit
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_gate import RedisGate
from shared.redis_ledger import RedisLedger
from shared.redis_room import room_reader
from shared.redis_url import parse_redis_url

PAGE = Path(__file__).parents[2] / "ops" / "docs" / "scaling.md"
PREFIX = "bk"
BREAKER = Breaker(success_threshold=1)
PROVIDER = Provider(id="p1", endpoint="http://127.0.0.1:9/v1")
OF_FILES = ("put", "pin", "unpin")
OWN = re.compile(r"b:(?P<id>batch_\w+)(:(st|ix|at|ta|ru|sh|r:\d+|s:\d+))?")
OF_THE_FLEET = re.compile(r"(bs|once|wr|wait|woken|lm|lone|pv|sk|gs|fl|left|death)(:.*)?")
"""Of which there is one for each owner, writer, provider or scope."""

_ROW = re.compile(r"^\| `(?P<script>\w+)` \| (?P<batches>none|one|many) \| (?P<fleet>[^|]*) \|", re.MULTILINE)
_HOW_MANY = {0: "none", 1: "one"}


class Story:
    """Everything that can become of batches, as shortly as it can be told."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._ledger = RedisLedger(client, PREFIX)
        self._files = RedisFiles(client, PREFIX)

    def tell(self) -> None:
        self._ledger.beat(worker())
        for act in (
            self._completes, self._fails, self._is_cancelled, self._is_cancelled_idle, self._expires, self._waits,
            self._loses_holders, self._is_one_of_two, self._holds_files, self._is_woken, self._is_woken_by_hand,
        ):  # fmt: skip
            act()
        self._ledger.beat(worker("leaving"))
        self._ledger.retire("leaving")
        self._ledger.lead("w", 1.0)
        self._ledger.beat(worker("silent"))
        self._is_over("alive")
        self._ledger.reap(most=100)

    def _is_over(self, name: str) -> None:
        """All that stands in one of the fleet's sets by time: as if that had come."""
        for member, _ in self._client.zscan_iter(f"{PREFIX}:{name}"):
            self._client.zadd(f"{PREFIX}:{name}", {member: 0})

    def _started(self, jobs: int = 3, **changes: object) -> BatchSpec:
        made = spec(**changes)
        self._ledger.create(made, Once(owner=made.owner, name=made.id, fingerprint="print", keep_s=60))
        assert self._ledger.start(self._chore(), index=index(jobs), model="m")
        return made

    def _chore(self) -> Chore:
        chore = self._ledger.take_chore(5.0)
        assert chore is not None
        assert self._ledger.keep_chore(chore, 5.0)
        return chore

    def _claims(self, lease_s: float = 30.0) -> list[Claim]:
        refs = self._ledger.feed(shard_size=1, most=100)
        found = [self._ledger.claim(ref, holder="w", lease_s=lease_s) for ref in refs]
        assert None not in found
        return [claim for claim in found if claim is not None]

    def _finish(self, claims: list[Claim]) -> None:
        for serial, claim in enumerate(claims):
            some = [outcome(slip.index, claim=claim) for slip in claim.slips]
            self._ledger.finish(claim.batch_id, some, writer=claim.ref, serial=serial)

    def _end(self) -> None:
        assert self._ledger.end(self._chore()) is not None

    def _completes(self) -> None:
        made = self._started()
        claims = self._claims()
        self._ledger.renew([(c.ref, c.token) for c in claims], lease_s=30)
        self._ledger.release(claims[0].ref, claims[0].token)
        self._finish(claims[1:])
        self._ledger.progress(made.id)
        (again,) = self._claims()
        self._finish([again])
        for claim in (again, *claims[1:]):
            self._ledger.release(claim.ref, claim.token)
        self._ledger.segment(made.id, 0)
        assert self._ledger.roll_up(made.id, 0, output=(3, 9), errors=(0, 0))
        self._end()
        self._ledger.answered_since(["p1"], 0.0)

    def _fails(self) -> None:
        self._ledger.create(spec())
        assert self._ledger.reject(self._chore(), [Fault(code="c", message="m")])

    def _is_cancelled(self) -> None:
        """With a shard in every state, so that the end has all of them to clear away."""
        made = self._started(4)
        claims = self._claims()
        self._split(claims[0], delay_s=60.0)
        self._ledger.release(claims[1].ref, claims[1].token)
        self._ledger.feed(shard_size=1, most=1)
        self._ledger.cancel(made.id)
        really_wait(0.02)
        self._seal()

    def _seal(self) -> None:
        self._ledger.reap(most=100)
        self._is_over("closing")
        self._ledger.reap(most=100)
        chore = self._chore()
        assert self._ledger.seal(chore, 0)
        assert self._ledger.end(chore) is not None

    def _is_cancelled_idle(self) -> None:
        self._ledger.cancel(self._started().id)
        self._seal()
        made = self._started(1)
        (claim,) = self._claims()
        self._ledger.cancel(made.id)
        self._ledger.release(claim.ref, claim.token)
        self._seal()

    def _is_one_of_two(self) -> None:
        for _ in range(2):
            self._started(1)
        claims = self._claims(lease_s=0.01)
        self._ledger.renew([(c.ref, c.token) for c in claims], lease_s=0.01)
        really_wait(0.02)
        self._ledger.reap(most=100)
        room_reader(self._client, PREFIX, least_answer_bytes=1)()
        self._finish(self._claims())
        self._client.zadd(f"{PREFIX}:chores", {"batch_gone": 0})
        self._end()
        self._end()

    def _split(self, claim: Claim, delay_s: float) -> str:
        jobs = tuple(slip.index for slip in claim.slips)
        ref = self._ledger.split(
            claim.ref,
            claim.token,
            Split(
                jobs=jobs, kind="park", delay_s=delay_s, provider="p1", reason="breaker_open", wait_for=("p1",),
                claimed_at=claim.claimed_at, asked_at=1.0,
                soon_s=30.0,
            ),
        )  # fmt: skip
        assert ref is not None
        return ref

    def _expires(self) -> None:
        self._started(2, window_s=0.05)
        self._claims(lease_s=0.01)
        really_wait(0.06)
        self._ledger.reap(most=100)
        self._seal()

    def _waits(self) -> None:
        self._started(2)
        first, second = self._claims()
        claims = [self._claim(self._split(claim, delay_s=0.0)) for claim in (first, second)]
        for claim in (first, second):
            self._ledger.release(claim.ref, claim.token)
        ref = self._split(claims[0], delay_s=0.001)
        really_wait(0.01)
        self._ledger.decline(ref)
        self._split(claims[1], delay_s=0.001)
        really_wait(0.01)
        self._ledger.reap(most=100)
        self._finish(self._claims())
        self._end()

    def _claim(self, ref: str) -> Claim:
        found = self._ledger.claim(ref, holder="w", lease_s=30)
        assert found is not None
        return found

    def _loses_holders(self) -> None:
        self._started(2)
        self._claims(lease_s=0.01)
        really_wait(0.02)
        self._ledger.reap(most=100)
        for ref in self._ledger.feed(shard_size=1, most=100):
            self._ledger.decline(ref)
        self._finish(self._claims())
        self._end()

    def _parked(self) -> None:
        """A shard each of two batches that are being cancelled."""
        made = [self._started(1) for _ in range(2)]
        for claim in self._claims():
            self._split(claim, delay_s=60.0)
            self._ledger.release(claim.ref, claim.token)
        for batch in made:
            self._ledger.cancel(batch.id)

    def _is_woken(self) -> None:
        """A provider's breaker closes by a call under every kind of limit."""
        self._parked()
        kinds: tuple[Kind, ...] = ("rpm", "tpm", "money", "concurrency")
        limits = tuple(Limit("p:p1", kind, 1, 1000) for kind in kinds)
        candidate = candidate_of(PROVIDER, "m", "/v1/chat/completions", "key", BREAKER, limits)
        gate = RedisGate(self._client, PREFIX)
        for action in ("open", "half_open"):
            gate.change("p1", action, settings=BREAKER)
        tell = partial(gate.exchange, settings=BREAKER, sender="w", spread=0.0)
        (verdict,) = tell([Ask("call", (candidate,))], [], serial=1).verdicts
        report = Report("call", candidate, verdict.generation, "answered", duration_s=0.1, limits=limits)
        told = tell([], [report], serial=2, flight=Flight({}))
        assert [change.after for change in told.changes] == ["closed"]
        self._seal()
        self._seal()

    def _is_woken_by_hand(self) -> None:
        self._parked()
        RedisGate(self._client, PREFIX).change("p1", "wake", settings=BREAKER)
        self._seal()
        self._seal()

    def _holds_files(self) -> None:
        made = spec()
        self._files.put(made.input_file_id, 0, [b"x"])
        self._files.pin(made.input_file_id, made.id, 2e9)
        self._files.unpin(made.input_file_id, made.id)


@pytest.fixture(scope="module")
def found(valkey_url: str) -> tuple[dict[str, set[str]], dict[str, int]]:
    """Script -> the keys it touched, without the prefix; and of how many batches at most in one call."""
    client = connect(parse_redis_url(valkey_url), role="worker", max_connections=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "source", witnessed())
        Story(client).tell()
    return {
        name: {key.removeprefix(f"{PREFIX}:") for key in keys} for name, keys in touched(client).items()
    }, most_batches(client)


def listed() -> dict[str, tuple[str, set[str]]]:
    """Script -> of how many batches it touches keys in one call, and which of the fleet's, as the page has it."""
    rows = _ROW.finditer(PAGE.read_text(encoding="utf-8"))
    return {row["script"]: (row["batches"], set(re.findall(r"`(\w+)`", row["fleet"]))) for row in rows}


def of_the_fleet(keys: set[str]) -> set[str]:
    return {OF_THE_FLEET.sub(r"\1", key) for key in keys if not OWN.fullmatch(key)}


def test_scripts_touch_what_the_page_lists(found: tuple[dict[str, set[str]], dict[str, int]]) -> None:
    names, batches = found
    seen = {
        name: (_HOW_MANY.get(batches.get(name, 0), "many"), of_the_fleet(keys))
        for name, keys in names.items()
        if name not in OF_FILES
    }
    assert seen == listed()


def test_scripts_of_files_touch_their_file_alone(found: tuple[dict[str, set[str]], dict[str, int]]) -> None:
    names, _ = found
    for name in OF_FILES:
        assert all(re.fullmatch(r"f:file-\w+(:[cp])?", key) for key in names[name]), name
