"""One driver a store; a dead one's lock is no obstacle."""

import json
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from mme_core.errors import StoreError
from mme_core.io.place import open_place
from preprocess.lock import DEAD_S, LOCK, StoreLock


def holder(**changes):
    started = psutil.Process().create_time()
    here = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    return json.dumps({**here, "token": "other", "beat": time.time(), **changes}).encode()


@pytest.mark.parametrize("url", ["{}/store", "memory://lock-{}"])
def test_second_driver_is_refused(tmp_path, url):
    place = open_place(url.format(tmp_path))
    with StoreLock(place):
        text = f"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(StoreError, match=text), StoreLock(place):
            pass
        assert place.exists(LOCK)
    assert place.names() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"started": 1.0},  # the number was given to another process since
        {"host": "elsewhere", "beat": time.time() - 2 * DEAD_S},
    ],
)
def test_stale_lock_is_taken_over(tmp_path, changes):
    place = open_place(tmp_path)
    place.write(LOCK, holder(**changes))
    with StoreLock(place):
        assert json.loads(place.read(LOCK))["token"] != "other"


def test_lock_of_a_process_that_ended(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    place = open_place(tmp_path)
    place.write(LOCK, holder(pid=child.pid))
    with StoreLock(place):
        pass


def test_beating_lock_of_another_machine_is_kept(tmp_path):
    place = open_place(tmp_path)
    place.write(LOCK, holder(host="elsewhere"))
    with pytest.raises(StoreError, match="on elsewhere"), StoreLock(place):
        pass
    assert json.loads(place.read(LOCK))["token"] == "other"
