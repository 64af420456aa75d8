"""Ray starts, or one line says why not. It listens only to this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mme_core.errors import UsageError
from preprocess import pool, ray_start
from preprocess.ray_start import check_address, check_processes, prepared, short_folder

PLACES = ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS", "RAY_AUTH_MODE")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)


# folders


def test_a_long_temporary_folder_is_not_used(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, str(long))
    assert len(str(short_folder())) <= 28


@pytest.mark.parametrize("trouble", ["missing", "full"])
def test_an_unusable_folder_is_not_used(tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(ray_start, "_LONGEST_BASE", 200)
    place = tmp_path / "place"
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    if trouble == "full":
        place.mkdir()
        real = ray_start.has_room
        monkeypatch.setattr(ray_start, "has_room", lambda f, size: f != place and real(f, size))
    assert short_folder() != place
    place.mkdir(exist_ok=True)
    monkeypatch.undo()


def test_missing_folder_gives_a_one_line_error(monkeypatch):
    monkeypatch.setattr(ray_start, "has_room", lambda folder, size: False)
    with pytest.raises(UsageError, match=r"^Ray cannot start: it needs a folder .*RAY_TMPDIR=\S+,"):
        short_folder()


def test_the_private_folder_is_removed_after_the_run():
    before = dict(os.environ)
    with prepared(1, None) as options:
        folder = Path(options["_temp_dir"]).parent
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert os.environ["RAY_AUTH_MODE"] == "token" and token.parent == folder
        assert (token.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
        assert len(token.read_text()) == 64
        longest = f"{options['_temp_dir']}/session_2026-11-26_09-33-48_123456_1234567"
        assert len(f"{longest}/sockets/plasma_store") <= 107
    assert not folder.exists()
    assert dict(os.environ) == before


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with prepared(1, None):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_full_shared_memory_is_not_used(monkeypatch):
    real = ray_start.has_room
    monkeypatch.setattr(
        ray_start, "has_room", lambda f, size: f != Path("/dev/shm") and real(f, size)
    )
    with prepared(1, None) as options:
        assert Path(options["_plasma_directory"]).is_dir()


# processes


def test_too_few_processes_give_a_one_line_error(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(ray_start.resource, "getrlimit", lambda _: (300, 300))
    check_processes(1)
    with pytest.raises(UsageError, match=r"about 650 threads, and `ulimit -u` leaves 300 of 300"):
        check_processes(8)


# addresses


@pytest.mark.parametrize("address", ["http://head:8265", "auto"])
def test_the_dashboards_address_is_refused(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    named_by = "RAY_ADDRESS" if address == "auto" else "--address http://head:8265"
    with pytest.raises(UsageError, match=f"^{named_by}: http://head:8265 is the address of Ray's"):
        check_address(address)


@pytest.mark.parametrize("address", ["head", "head:", "head:0", "head:port", "head:99999"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(UsageError, match="is no address of a cluster: give HOST:PORT"):
        check_address(address)


def test_a_dead_address_gives_a_one_line_error(monkeypatch):
    monkeypatch.setattr(ray_start, "_PATIENCE_S", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(UsageError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
            check_address(f"127.0.0.1:{port}")


def test_a_live_address_is_accepted():
    with socket.socket() as live:
        live.bind(("127.0.0.1", 0))
        live.listen()
        check_address(f"127.0.0.1:{live.getsockname()[1]}")


# Ray itself

LISTEN = """
import os, re, subprocess
from preprocess.ray_start import prepared
with prepared(1, None) as options:
    import ray
    from ray._private import ray_constants
    assert not ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    ray.init(**options, logging_level="CRITICAL")
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    print(options["_temp_dir"])
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            if state == "0A":
                print("socket", inode, local.partition(":")[0])
    own = {os.getpid()}
    for pid in sorted(map(int, filter(str.isdecimal, os.listdir("/proc")))):
        try:
            parent = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
            if parent not in own and pid not in own:
                continue
            own.add(pid)
            for fd in os.listdir(f"/proc/{pid}/fd"):
                print("own", os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    ray.shutdown()
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_local_ray_listens_only_on_loopback(tmp_path):
    environment = {**os.environ, "HOME": "/nowhere", "TMPDIR": str(tmp_path / ("x" * 90))}
    done = subprocess.run(
        [sys.executable, "-c", LISTEN], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    mine = set(re.findall(r"own socket:\[(\d+)\]", done.stdout))
    sockets = dict(re.findall(r"socket (\d+) (\w+)", done.stdout))
    listening = {address for inode, address in sockets.items() if inode in mine}
    assert listening and listening <= LOOPBACK
    assert not Path(done.stdout.splitlines()[0]).exists()


def test_a_signal_waits_for_the_end_of_ray():
    ended = []

    def shutdown():
        signal.raise_signal(signal.SIGINT)
        ended.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        pool._shut_down(SimpleNamespace(shutdown=shutdown))
    assert ended == ["all of it"]


@pytest.mark.parametrize("error", ["OutOfMemoryError", "GetTimeoutError", "RayActorError"])
def test_the_loss_of_the_display_ends_no_run(error):
    import ray

    def get(*_, **__):
        kind = getattr(ray.exceptions, error)
        raise kind("lost") if error != "RayActorError" else kind()

    fake = SimpleNamespace(get=get, exceptions=ray.exceptions)
    board = SimpleNamespace(take=SimpleNamespace(remote=lambda: None))
    pool._relay(fake, board, pytest.fail, {})


def test_rays_own_memory_monitor_is_off():
    name = "RAY_memory_monitor_refresh_ms"
    with prepared(1, None):
        assert os.environ[name] == "0"
