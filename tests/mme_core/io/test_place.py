"""All places behave alike: a local directory, fsspec's memory, S3."""

import errno
import os
import pickle
import threading
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mme_core.errors import StoreError
from mme_core.io import remote_place
from mme_core.io.place import LocalPlace, local_path, open_place
from mme_core.io.remote_place import RemotePlace


@pytest.fixture(params=["local", "file", "memory", "s3"])
def place(request, tmp_path):
    if request.param == "s3":
        return open_place(f"{request.getfixturevalue('bucket')}/{uuid.uuid4()}")
    if request.param == "memory":
        return open_place(f"memory://place-{uuid.uuid4()}")
    return open_place(f"{'file://' * (request.param == 'file')}{tmp_path}/place")


def write_shard(place, name, marker=True):
    begun = place.begin(f"shards/{name}")
    place.write(f"{begun}/a/0", name.encode())
    if marker:
        place.write(f"{begun}/zarr.json", b"{}")
        place.commit(begun, f"shards/{name}", "zarr.json")
    return begun


def test_a_path_and_a_file_url_are_local(tmp_path):
    assert isinstance(open_place(tmp_path), LocalPlace)
    assert isinstance(open_place("s3://bucket/x"), RemotePlace)
    assert local_path(f"file://{tmp_path}/x") == local_path(tmp_path / "x") == tmp_path / "x"
    assert local_path("s3://bucket/x") is None


def test_read_all_or_a_part(place):
    place.write("a/b", [b"01234", b"56789"])
    assert place.read("a/b") == b"0123456789"
    assert place.read_tail("a/b", 3) == b"789"
    assert place.read_range("a/b", 2, 5) == b"234"
    place.write("a/b", b"new")
    assert place.read("a/b") == b"new"
    assert place.at("a/b") == f"{place.url}/a/b"


@pytest.mark.parametrize(
    "read",
    [
        lambda place: place.read("none"),
        lambda place: place.read_tail("none", 1),
        lambda place: place.read_range("none", 0, 1),
    ],
)
def test_missing_file_is_file_not_found(place, read):
    place.write("a", b"")
    with pytest.raises(FileNotFoundError):
        read(place)


def test_what_is_there(place):
    assert not place.exists() and place.names() == [] and not place.is_folder()
    place.write("b/one", b"1")
    place.write("b/c/two", b"22")
    place.write("a", b"")
    assert place.exists() and place.exists("a") and place.exists("b") and not place.exists("d")
    assert place.is_file("a") and not place.is_file("b") and not place.is_file("d")
    assert place.is_folder("b") and place.is_folder() and not place.is_folder("a")
    assert place.names() == ["a", "b"] and place.names("b") == ["c", "one"]
    assert place.files("b") == {"one": 1, "c/two": 2}


def test_stamps_change_with_the_file(place):
    place.write("a", b"1")
    before, missing = place.stamps(["a", "b"])
    assert before and missing == "" and place.stamps(["a"]) == [before]
    place.write("a", b"other")
    assert place.stamps(["a"]) != [before]


def test_remove_file_and_folder(place):
    for name in ("a", "b/one", "b/c/two", "kept"):
        place.write(name, b"")
    for name in ("a", "b", "none"):
        place.remove(name)
    assert place.names() == ["kept"]


def test_remove_takes_files_that_appear_meanwhile(monkeypatch):
    place, folder = open_place("memory://removed"), "shards/00001.zarr"
    place.write(f"{folder}/c.0", b"array")
    delete, late = MemoryFileSystem.rm, [f"{folder}/zarr.json"]

    def slow(self, path, **options):
        delete(self, path, **options)
        while late:
            place.write(late.pop(), b"marker")

    monkeypatch.setattr(MemoryFileSystem, "rm", slow)
    place.remove(folder)
    assert not late and place.files("shards") == {}


def test_fetch_copies_to_this_machine(place, tmp_path):
    place.write("a/b", b"1")
    place.fetch("a/b", tmp_path / "c" / "d")
    assert (tmp_path / "c" / "d").read_bytes() == b"1"


def test_append_adds_or_does_nothing(place):
    place.write("a", b"1")
    added = place.append("a", iter([b"2", b"3"]))
    assert place.read("a") == (b"123" if added else b"1")


def test_create_succeeds_once(place):
    assert place.create("lock", b"first")
    assert not place.create("lock", b"second")
    assert place.read("lock") == b"first"
    assert place.names() == ["lock"]
    place.remove("lock")
    assert place.create("lock", b"second")


def test_create_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    place = open_place(tmp_path)
    assert place.create("lock", b"first")
    assert not place.create("lock", b"second")
    assert place.names() == ["lock"] and place.read("lock") == b"first"


def test_create_without_hard_links_leaves_nothing_on_a_full_disk(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def full(_):
        if "lock" in [path.name for path in tmp_path.iterdir()]:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", full)
    place = open_place(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        place.create("lock", b"first")
    assert place.names() == []


def test_create_by_many_at_once_has_one_winner(place):
    won, barrier = [], threading.Barrier(6)

    def run(number):
        mine = pickle.loads(pickle.dumps(place))
        barrier.wait()
        if mine.create("lock", str(number).encode()):
            won.append(str(number).encode())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [place.read("lock")]


@pytest.mark.parametrize("known", [(), ("memory",)], ids=["unknown", "ignores the condition"])
def test_create_without_conditional_writes(monkeypatch, known):
    """If several callers see no file, the last writer wins."""
    place = open_place(f"memory://place-{uuid.uuid4()}")
    monkeypatch.setattr(remote_place, "_CONDITIONAL_WRITES", known)
    fs, write = place._find("")[0], type(place._find("")[0]).pipe_file
    monkeypatch.setattr(
        type(fs), "pipe_file", lambda self, path, data, mode="": write(self, path, data)
    )
    monkeypatch.setattr(remote_place, "_SETTLE_S", 0.0)
    assert place.create("lock", b"first")
    monkeypatch.setattr(RemotePlace, "exists", lambda self, name: False)
    monkeypatch.setattr(
        remote_place.time, "sleep", lambda seconds: place.write("lock", b"of another writer")
    )
    assert not place.create("lock", b"second")


def test_folder_appears_when_it_is_committed(place):
    begun = write_shard(place, "0.zarr", marker=False)
    assert place.unfinished("shards", "zarr.json") == [begun.removeprefix("shards/")]
    assert not place.exists("shards/0.zarr/zarr.json")
    place.remove(begun)
    write_shard(place, "0.zarr")
    assert place.names("shards") == ["0.zarr"]
    assert place.files("shards/0.zarr") == {"a/0": 6, "zarr.json": 2}
    assert place.unfinished("shards", "zarr.json") == []


def test_first_of_two_committed_folders_stays(place):
    write_shard(place, "0.zarr")
    write_shard(place, "0.zarr")
    assert place.names("shards") == ["0.zarr"]


def test_discarded_folder_never_appears(place):
    begun = write_shard(place, "0.zarr", marker=False)
    place.discard(begun)
    assert not place.exists("shards/0.zarr/zarr.json")


def test_pickled_place_is_the_same(place):
    place.write("a", b"1")
    assert pickle.loads(pickle.dumps(place)).read("a") == b"1"


def test_place_works_after_a_fork(place):
    place.write("a", b"1")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if place.read("a") == b"1" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_missing_bucket_is_named(bucket):
    place = open_place("s3://no-such-bucket-here/x")
    for write in (place.write, place.create):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket-here/x/a: .*bucket"):
            write("a", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        open_place("/dev").append("full", [b"row"])
