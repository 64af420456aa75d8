"""A store has one driver at a time, and the lock of a dead driver is taken over."""

import json
import subprocess
import sys
import threading
import time

import psutil
import pytest

from mme_core.errors import StoreError
from mme_core.io.place import LocalPlace, open_place
from preprocess import lock as locks
from preprocess.lock import LOCK, StoreLock, check_owner


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    monkeypatch.setattr(locks, "DEAD_S", 0.6)
    monkeypatch.setattr(locks, "LOOK_S", 0.02)


def holder(**changes):
    here = {**locks._this_process(), "host": "here", "token": "other", "beat": 1.0}
    return json.dumps({**here, **changes}).encode()


ELSEWHERE = {"kernel": "another boot or PID namespace", "host": "elsewhere"}


@pytest.mark.parametrize("url", ["{}/store", "memory://lock-{}"])
def test_second_driver_is_refused(tmp_path, url):
    place = open_place(url.format(tmp_path))
    with StoreLock(place) as lock:
        with pytest.raises(StoreError, match=f"process {psutil.Process().pid} on "):
            StoreLock(place).__enter__()
        check_owner(place, lock.token)
    assert place.names() == []


@pytest.mark.parametrize("changes", [{"since_boot": -9.0}, ELSEWHERE], ids=["here", "elsewhere"])
def test_dead_lock_is_taken_over(tmp_path, changes):
    place = open_place(tmp_path)
    place.write(LOCK, holder(**changes))
    with StoreLock(place) as lock:
        check_owner(place, lock.token)
        with pytest.raises(StoreError, match="lost its lock"):
            check_owner(place, "other")
    assert place.names() == []


def test_lock_of_an_ended_process_is_taken(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    place = open_place(tmp_path)
    place.write(LOCK, holder(pid=child.pid))
    with StoreLock(place):
        pass


def test_lock_of_a_dead_successor_is_taken(tmp_path):
    place = open_place(tmp_path)
    place.write(LOCK, holder(since_boot=-9.0))
    place.write(f"{LOCK}.other", holder(since_boot=-9.0, token="second"))
    with StoreLock(place):
        assert place.exists(f"{LOCK}.second")
    assert place.names() == []


@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_lock_with_a_heartbeat_is_kept(tmp_path, monkeypatch, skew):
    monkeypatch.setattr(locks, "DEAD_S", 60)  # a busy machine delays heartbeats
    place, stop = open_place(tmp_path), threading.Event()
    place.write(LOCK, holder(**ELSEWHERE, beat=time.time() + skew))

    def beat():
        while not stop.wait(0.1):
            place.write(LOCK, holder(**ELSEWHERE, beat=time.time() + skew))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StoreError, match="on elsewhere"):
            StoreLock(place).__enter__()
    finally:
        stop.set()
        thread.join()
    assert json.loads(place.read(LOCK))["token"] == "other"


def test_process_number_of_another_namespace_is_distinct(tmp_path):
    place = open_place(tmp_path)
    place.write(LOCK, holder(**ELSEWHERE))  # number and start are those of a living process here
    with StoreLock(place) as lock:
        check_owner(place, lock.token)


def test_only_one_driver_takes_a_dead_lock(tmp_path):
    for round_ in range(20):
        place = open_place(tmp_path / str(round_))
        place.write(LOCK, holder(since_boot=-9.0))
        got, refused, barrier = [], [], threading.Barrier(6)

        def start(place=place, got=got, refused=refused, barrier=barrier):
            barrier.wait()
            try:
                got.append(StoreLock(place).__enter__())
            except StoreError as error:
                refused.append(error)

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1 and len(refused) == 5
        got[0].__exit__(None, None, None)
        assert place.names() == []


def test_driver_that_lost_its_lock_leaves_it(tmp_path):
    place = open_place(tmp_path)
    sleeper = StoreLock(place).__enter__()
    place.write(f"{LOCK}.{sleeper.token}", holder(token="successor"))
    sleeper._thread.join(60)
    assert not sleeper._thread.is_alive()  # so it writes no more heartbeats
    with pytest.raises(StoreError, match="lost its lock"):
        check_owner(place, sleeper.token)
    sleeper.__exit__(None, None, None)
    assert place.names() == [LOCK, f"{LOCK}.{sleeper.token}"]


def test_driver_retries_when_the_lock_changes(tmp_path, monkeypatch):
    """Another driver took over the dead lock and released it before this one could take it."""
    place, create, late = open_place(tmp_path), LocalPlace.create, []
    place.write(LOCK, holder(since_boot=-9.0))

    def slowly(self, name, data):
        if not late:
            late.append(name)
            self.remove(LOCK)
        return create(self, name, data)

    monkeypatch.setattr(LocalPlace, "create", slowly)
    with StoreLock(place):
        assert late == [f"{LOCK}.other"] and place.names() == [LOCK]


def test_setting_the_clock_frees_no_lock(tmp_path, monkeypatch):
    place, boot = open_place(tmp_path), psutil.boot_time()
    with StoreLock(place):
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + 3600)
        with pytest.raises(StoreError, match=f"process {psutil.Process().pid} on "):
            StoreLock(place).__enter__()


def test_unreadable_lock_is_taken_over(tmp_path):
    place = open_place(tmp_path)
    place.write(LOCK, b"")
    with StoreLock(place) as lock:
        check_owner(place, lock.token)


@pytest.mark.parametrize("content", [b"", b"[]", b'"text"'])
def test_a_chain_of_unreadable_locks_is_taken_over(tmp_path, content):
    place = open_place(tmp_path)
    place.write(LOCK, content)
    place.write(f"{LOCK}.unreadable", content)
    with StoreLock(place) as lock:
        check_owner(place, lock.token)
    assert place.names() == []
