"""Creating once, on the memory twins and on a real Valkey: whatever is made, its key makes it once."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.ledgers import spec
from support.lone import job
from support.stores import Stores

from shared.errors import GoneError, KeyReusedError
from shared.files import FileRecord
from shared.idempotency import Kept, Once
from shared.ids import new_file_id

Make = Callable[[Stores, Once | None], str]


def once(name: str = "key", fingerprint: str = "aa", owner: str = "default", **changes: Any) -> Once:
    return Once(owner=owner, name=name, fingerprint=fingerprint, keep_s=changes.pop("keep_s", 60), **changes)


def a_batch(stores: Stores, key: Once | None) -> str:
    return stores.ledger.create(spec(owner=key.owner if key else "default"), key).spec.id


def a_file(stores: Stores, key: Once | None) -> str:
    file_id = new_file_id()
    stores.files.put(file_id, 0, [b"x"])
    return stores.files.publish(record(file_id, key.owner if key else "default"), key)


def a_job(stores: Stores, key: Once | None) -> str:
    new = job(owner=key.owner if key else "default", once=key)
    submitted = stores.lone.submit([new])
    made = submitted.others.get(0, new.spec.id)
    assert submitted.known == (made != new.spec.id,)
    if not made:
        raise KeyReusedError
    return made


def record(file_id: str, owner: str) -> FileRecord:
    return FileRecord(
        id=file_id,
        owner=owner,
        filename="in.jsonl",
        purpose="batch",
        bytes=1,
        created_at=1,
        expires_at=4_000_000_000,
        chunks=1,
        chunk_bytes=65536,
    )


def count(stores: Stores, owner: str = "default") -> int:
    """Everything that the owner has."""
    return (
        len(stores.ledger.page(owner, after=None, limit=100)[0])
        + len(stores.files.page(owner, purpose=None, after=None, limit=100, ascending=True)[0])
        + len(stores.lone.page(owner, after=None, limit=100)[0])
    )


MAKERS: list[Make] = [a_batch, a_file, a_job]


@pytest.fixture(params=MAKERS, ids=["batch", "file", "job"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def test_a_key_makes_one_thing(stores: Stores, make: Make) -> None:
    made = make(stores, once())
    assert [make(stores, once()) for _ in range(3)] == [made] * 3
    assert count(stores) == 1
    assert stores.idempotency.find("default", "key") == Kept("aa", made)


def test_without_a_key_everything_is_made(stores: Stores, make: Make) -> None:
    assert make(stores, None) != make(stores, None)
    assert count(stores) == 2
    assert stores.idempotency.find("default", "key") is None


@pytest.mark.parametrize("other", MAKERS, ids=["batch", "file", "job"])
def test_a_key_belongs_to_one_request_whatever_it_makes(stores: Stores, make: Make, other: Make) -> None:
    make(stores, once())
    with pytest.raises(KeyReusedError):
        other(stores, once(fingerprint="bb"))
    assert count(stores) == 1


def test_keys_of_owners_are_apart(stores: Stores, make: Make) -> None:
    mine, theirs = make(stores, once()), make(stores, once(owner="somebody", fingerprint="bb"))
    assert mine != theirs
    assert (make(stores, once()), make(stores, once(owner="somebody", fingerprint="bb"))) == (mine, theirs)
    assert (count(stores), count(stores, "somebody")) == (1, 1)


def test_a_key_is_forgotten_after_its_time(stores: Stores, make: Make) -> None:
    made = make(stores, once(keep_s=1))
    stores.pass_time(1.2)
    assert stores.idempotency.find("default", "key") is None
    assert make(stores, once(fingerprint="bb")) != made


def test_made_anew_the_key_stands_for_the_newest(stores: Stores, make: Make) -> None:
    first, second = make(stores, once(anew=True)), make(stores, once(anew=True))
    assert first != second
    assert make(stores, once()) == second
    assert count(stores) == 2


def test_making_again_by_the_same_id_is_making_it_once(stores: Stores) -> None:
    new, file, wanted = job(once=once("job")), record("file-1", "default"), spec()
    for _ in range(2):
        submitted = stores.lone.submit([new])
        assert submitted.others == {}
        assert stores.files.publish(file, once("file")) == "file-1"
        assert stores.ledger.create(wanted, once("batch")).spec.id == wanted.id
    assert submitted.known == (True,)


def test_jobs_submitted_together_may_share_a_key(stores: Stores) -> None:
    first, second, third, other = (
        job(once=once()),
        job(once=once()),
        job(),
        job(once=once(fingerprint="bb")),
    )
    submitted = stores.lone.submit([first, second, third, other])
    assert submitted.known == (False, True, False, True)
    assert submitted.others == {1: first.spec.id, 3: ""}
    assert {j.spec.id for j in stores.lone.page("default", after=None, limit=9)[0]} == {
        first.spec.id,
        third.spec.id,
    }


def test_a_batch_that_is_gone_is_not_made_again(stores: Stores) -> None:
    wanted = spec(retention_s=1.0)
    stores.ledger.create(wanted, once())
    stores.ledger.cancel(wanted.id)
    chore = stores.ledger.take_chore(10)
    assert chore is not None
    stores.ledger.end(chore)
    stores.pass_time(1.2)
    with pytest.raises(GoneError, match=wanted.id):
        stores.ledger.create(spec(), once())


def test_a_file_that_is_gone_is_not_made_again(stores: Stores) -> None:
    made = a_file(stores, once())
    stores.files.delete(made)
    assert a_file(stores, once()) == made
    assert count(stores) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(MAKERS),
        st.sampled_from(["default", "somebody"]),
        st.sampled_from(["key-1", "key-2"]),
        st.sampled_from(["this", "that"]),
        st.sampled_from([False, False, True]),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_order_of_requests(
    new_stores: Callable[[], Stores], steps: list[tuple[Make, str, str, str, bool]]
) -> None:
    stores = new_stores()
    kept: dict[tuple[str, str], Kept] = {}
    things = 0
    for make, owner, name, content, anew in steps:
        print_ = f"{make.__name__}/{content}"  # the path is part of it
        key = once(name, print_, owner, anew=anew)
        found = None if anew else kept.get((owner, name))
        if found is not None and found.fingerprint != print_:
            with pytest.raises(KeyReusedError):
                make(stores, key)
            continue
        made = make(stores, key)
        assert found is None or made == found.id
        things += found is None
        kept[owner, name] = Kept(print_, made)
    assert count(stores) + count(stores, "somebody") == things
