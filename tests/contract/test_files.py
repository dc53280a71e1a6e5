"""What every file store must do, on the memory twin and on a real Valkey."""

import pytest
import redis
from support.stores import Stores

from shared.errors import NotFoundError
from shared.files import CHUNK_BYTES, FileRecord, Files, Purpose
from shared.redis_files import RedisFiles

FAR = 4_000_000_000


def publish(files: Files, file_id: str, data: bytes, **changes: object) -> FileRecord:
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    files.put(file_id, 0, chunks)
    purpose: Purpose = "batch"
    fields: dict[str, object] = {
        "id": file_id,
        "owner": "default",
        "filename": "in.jsonl",
        "purpose": purpose,
        "bytes": len(data),
        "created_at": 1,
        "expires_at": FAR,
        "chunks": len(chunks),
        "chunk_bytes": CHUNK_BYTES,
    }
    record = FileRecord(**{**fields, **changes})  # type: ignore[arg-type]
    files.publish(record)
    return record


def text(size: int) -> bytes:
    return bytes(32 + (i * 7 + i // 95) % 95 for i in range(size))


def test_what_was_put_is_read_back(stores: Stores) -> None:
    data = text(3 * CHUNK_BYTES + 17)
    record = publish(stores.files, "file-1", data)
    assert stores.files.get("file-1") == record
    assert b"".join(stores.files.read("file-1", record.chunks)) == data


def test_nothing_shows_before_it_is_published(stores: Stores) -> None:
    stores.files.put("file-1", 0, [b"half of it"])
    assert stores.files.get("file-1") is None
    assert stores.files.page("default", purpose=None, after=None, limit=10, ascending=True) == ([], False)
    stores.files.discard("file-1")
    with pytest.raises(NotFoundError):
        list(stores.files.read("file-1", 1))


def test_slices_are_cut_across_chunks(stores: Stores) -> None:
    data = text(3 * CHUNK_BYTES)
    publish(stores.files, "file-1", data)
    places = [(0, 5), (CHUNK_BYTES - 3, 6), (CHUNK_BYTES, 4), (10, 2 * CHUNK_BYTES), (3 * CHUNK_BYTES - 1, 1)]
    assert stores.files.slices("file-1", places) == [data[at : at + size] for at, size in places]
    assert stores.files.slices("file-1", []) == []


def test_chunks_may_be_missing_where_they_are_empty(stores: Stores) -> None:
    stores.files.put("file-1", 0, [b"a"])
    stores.files.put("file-1", 1, [b""])
    stores.files.put("file-1", 2, [b"c"])
    assert b"".join(stores.files.read("file-1", 3)) == b"ac"


def test_pages_go_both_ways_and_filter(stores: Stores) -> None:
    for n in range(5):
        publish(stores.files, f"file-{n}", b"x", purpose="batch_output" if n == 2 else "batch")
    publish(stores.files, "file-9", b"x", owner="somebody")

    def ids(**query: object) -> list[str]:
        fields: dict[str, object] = {"purpose": None, "after": None, "limit": 10, "ascending": False}
        return [r.id for r in stores.files.page("default", **{**fields, **query})[0]]  # type: ignore[arg-type]

    assert ids() == ["file-4", "file-3", "file-2", "file-1", "file-0"]
    assert ids(ascending=True, limit=2) == ["file-0", "file-1"]
    assert ids(ascending=True, limit=2, after="file-1") == ["file-2", "file-3"]
    assert ids(after="file-3", limit=2, purpose="batch") == ["file-1", "file-0"]
    assert stores.files.page("default", purpose="batch", after=None, limit=3, ascending=False)[1]


def test_a_page_goes_on_after_a_file_that_was_deleted(stores: Stores) -> None:
    for n in range(3):
        publish(stores.files, f"file-{n}", b"x")
    stores.files.delete("file-1")
    records, more = stores.files.page("default", purpose=None, after="file-1", limit=10, ascending=False)
    assert ([r.id for r in records], more) == (["file-0"], False)


def test_deleting(stores: Stores) -> None:
    publish(stores.files, "file-1", b"x")
    assert stores.files.delete("file-1")
    assert not stores.files.delete("file-1")
    assert stores.files.get("file-1") is None
    with pytest.raises(NotFoundError):
        stores.files.slices("file-1", [(0, 1)])


def test_what_a_batch_needs_stays_until_the_batch_lets_go(stores: Stores) -> None:
    publish(stores.files, "file-1", b"needed")
    assert stores.files.pin("file-1", "batch_1", FAR)
    assert stores.files.pin("file-1", "batch_2", FAR)
    assert stores.files.delete("file-1")
    assert stores.files.get("file-1") is None
    assert not stores.files.pin("file-1", "batch_3", FAR)
    stores.files.unpin("file-1", "batch_1")
    assert stores.files.slices("file-1", [(0, 6)]) == [b"needed"]
    stores.files.unpin("file-1", "batch_2")
    with pytest.raises(NotFoundError):
        stores.files.slices("file-1", [(0, 6)])


def test_a_later_pin_does_not_shorten_an_earlier_one(stores: Stores) -> None:
    publish(stores.files, "file-1", b"needed")
    stores.files.pin("file-1", "batch_long", FAR)
    stores.files.pin("file-1", "batch_short", stores.now() + 0.5)
    stores.pass_time(1.6)
    stores.files.delete("file-1")
    assert stores.files.slices("file-1", [(0, 6)]) == [b"needed"]


def test_letting_go_leaves_a_file_that_is_still_there(stores: Stores) -> None:
    publish(stores.files, "file-1", b"kept")
    stores.files.pin("file-1", "batch_1", FAR)
    stores.files.unpin("file-1", "batch_1")
    assert stores.files.slices("file-1", [(0, 4)]) == [b"kept"]


def test_contents_that_a_batch_has_held_back_go_with_their_file(stores: Stores) -> None:
    publish(stores.files, "file-1", b"private", expires_at=int(stores.now()) + 2)
    stores.files.pin("file-1", "batch_1", FAR)
    stores.files.pin("file-1", "batch_2", FAR)
    stores.files.unpin("file-1", "batch_1")
    stores.files.unpin("file-1", "batch_2")
    assert stores.files.slices("file-1", [(0, 7)]) == [b"private"]
    stores.pass_time(3.1)
    with pytest.raises(NotFoundError):
        stores.files.slices("file-1", [(0, 7)])


def test_contents_stay_for_another_batch_when_one_lets_go(stores: Stores) -> None:
    publish(stores.files, "file-1", b"needed", expires_at=int(stores.now()) + 2)
    stores.files.pin("file-1", "batch_1", FAR)
    stores.files.pin("file-1", "batch_2", FAR)
    stores.files.unpin("file-1", "batch_1")
    stores.pass_time(3.1)
    assert stores.files.get("file-1") is None
    assert stores.files.slices("file-1", [(0, 6)]) == [b"needed"]
    stores.files.unpin("file-1", "batch_2")
    with pytest.raises(NotFoundError):
        stores.files.slices("file-1", [(0, 6)])


@pytest.mark.parametrize("new_stores", ["valkey"], indirect=True)
def test_an_owners_list_does_not_grow_by_what_has_expired(stores: Stores) -> None:
    """Though nobody ever asks for it. The twin's list is of what is there."""
    assert isinstance(stores.files, RedisFiles)
    for n in range(100):
        publish(stores.files, f"file-old-{n}", b"gone", expires_at=int(stores.now()) + 1)
    stores.pass_time(2.1)
    for n in range(100):
        publish(stores.files, f"file-young-{n}", b"here")
    listed: redis.Redis = stores.files._redis
    assert 100 <= int(listed.zcard(stores.files._keys.files("default"))) < 150
