"""Both stages with their store, videos and lists behind s3://, against a local server."""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import s3fs
from made_up_targets import SPEC as MADE_UP
from made_up_targets import make_store, tubelets
from small_files import HELD_PLUGIN, SPEC, write_clip, write_tree

from mme_core.cli import main as mme
from mme_core.clips.dataset import ClipDataset
from mme_core.datasets import load_manifest
from mme_core.errors import StoreError, UsageError
from mme_core.io.remote import RemoteFile, join, relative
from mme_core.io.video import Video, read_frames
from mme_core.store import TargetStore
from mme_core.store.writer import ShardWriter
from mme_core.weights.run_folder import read_metrics
from train.data.staging import copies_folder, copy_shards

LONG = ["spec.short_side=64", "spec.long_side=80", "spec.stride=1", "spec.flow=dis-ultrafast"]


def words(root, store, *more):
    fixed = ["--dataset", "folder", "--root", root, "--store", store, "--videos-per-shard", "2"]
    return ["flows", *map(str, fixed), *map(str, more)]


def content(url):
    """name -> bytes of all files of all shards."""
    fs, path = fsspec.core.url_to_fs(f"{url}/shards")
    fs.invalidate_cache()
    return {name.removeprefix(path): fs.cat_file(name) for name in fs.find(path)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("set") / "videos", 6, ("a", "b"))


@pytest.fixture(scope="module")
def remote_videos(videos, bucket):
    s3fs.S3FileSystem().put(str(videos), f"{bucket}/videos", recursive=True)
    s3fs.S3FileSystem().pipe_file(f"{bucket}/videos/.hidden/x.mp4", b"")
    return f"{bucket}/videos"


def test_from_a_bucket_into_a_bucket(videos, remote_videos, bucket, tmp_path, capsys):
    """The store and its table are those of local folders; a second run finds nothing to do."""
    assert mme([*words(videos, tmp_path / "local", "--serial"), *SPEC]) == 0
    store = f"{bucket}/store"
    command = [*words(remote_videos, store, "--serial"), *SPEC]
    fs = s3fs.S3FileSystem()
    assert mme([*command, "--dry-run"]) == 0
    fs.invalidate_cache()
    assert not fs.exists(store)
    assert mme(command) == 0
    local, remote = TargetStore(tmp_path / "local"), TargetStore(store)
    assert list(local.videos) == list(remote.videos)
    before = content(store)
    assert before == content(tmp_path / "local")
    rows = [json.loads(line) for line in fs.cat_file(f"{store}/ledger.jsonl").splitlines()]
    assert [row["path"] for row in rows] == [f"{remote_videos}/{row['id']}" for row in rows]
    names = sorted(name.rpartition("/")[2] for name in fs.ls(store))
    assert names == ["index.npz", "ledger.jsonl", "shards", "store.json"]

    changed = fs.info(f"{store}/ledger.jsonl")["LastModified"]
    capsys.readouterr()
    assert mme(command) == 0
    assert "to do        0 videos" in capsys.readouterr().out
    assert fs.info(f"{store}/ledger.jsonl")["LastModified"] == changed

    # Without its metadata a shard is what a killed writer leaves: not seen, and made again.
    fs.rm(f"{store}/shards/00001.zarr/zarr.json")
    assert len(TargetStore(store).videos) == 4
    assert mme(command) == 0
    assert content(store) == before

    capsys.readouterr()
    assert mme(["verify", store]) == 0
    assert mme(["info", store]) == 0
    assert "videos      6 stored" in capsys.readouterr().out
    picture = ["visualize", store, "--source", "video", "-o", str(tmp_path / "tracks.png")]
    assert mme(picture) == 0


def test_ray_workers_and_a_killed_driver(videos, remote_videos, bucket, tmp_path, monkeypatch):
    (tmp_path / "held_plugin.py").write_text(HELD_PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    spec, store = [*SPEC[:-1], "spec.flow=held_plugin:flow"], f"{bucket}/killed"
    command = [*words(remote_videos, store, "--workers", "2"), *spec]
    driver, fs = subprocess.Popen([sys.executable, "-m", "mme_core", *command]), s3fs.S3FileSystem()
    deadline = time.monotonic() + 300
    while not fs.glob(f"{store}/shards/*.zarr/zarr.json"):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
        fs.invalidate_cache()
    driver.kill()
    driver.wait()
    assert 1 <= len(TargetStore(store).videos) < 6
    (tmp_path / "go").touch()
    assert mme([*words(remote_videos, store, "--serial"), *spec]) == 0
    assert mme([*words(videos, tmp_path / "local", "--serial"), *spec]) == 0
    assert content(store) == content(tmp_path / "local")
    assert len(fs.cat_file(f"{store}/ledger.jsonl").splitlines()) == 6


@pytest.mark.slow
def test_repair_restores_a_store_in_a_bucket(remote_videos, bucket):
    store, fs = f"{bucket}/mended", s3fs.S3FileSystem()
    assert mme([*words(remote_videos, store, "--serial"), *SPEC]) == 0
    before = content(store)
    chunk = fs.glob(f"{store}/shards/00000.zarr/shape/c.*")[0]
    fs.pipe_file(chunk, fs.cat_file(chunk)[:-1])
    fs.pipe_file(f"{store}/shards/00001.zarr/extra", b"x")
    fs.rm(f"{store}/shards/00002.zarr", recursive=True)
    assert content(store) != before
    assert mme(["repair", store]) == 0
    assert content(store) == before
    assert mme(["verify", "--deep", store]) == 0


def test_official_lists_and_containers_behind_a_url(videos, bucket, tmp_path):
    h5py = pytest.importorskip("h5py")
    local = tmp_path / "sets"
    write_clip(local / "k/train/abc_000001_000011.mp4")
    (local / "k/annotations").mkdir()
    rows = "label,youtube_id,time_start,time_end\ndance,abc,1,11\ndance,gone,1,11\n"
    (local / "k/annotations/train.csv").write_text(rows)
    write_clip(local / "h/jump/one.avi.mp4").rename(local / "h/jump/one.avi")
    lists = local / "h/testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "jump_test_split1.txt").write_text("one.avi 1\n")
    with h5py.File(local / "all.h5", "w") as file:
        data = np.frombuffer((videos / "a/000.mp4").read_bytes(), np.uint8)
        file.create_dataset("a/000", data=data)
    (local / "list.csv").write_text("k/train/abc_000001_000011.mp4 1\ns3://other/x.mp4 0\n")
    (local / "s").mkdir()
    write_clip(local / "s/train/run/1.mp4")
    s3fs.S3FileSystem().put(str(local), f"{bucket}/sets", recursive=True)
    url = f"{bucket}/sets"
    asked = [
        ("k400", "/k", "train", {}),
        ("hmdb51", "/h", None, {}),
        ("hdf5", "", None, {}),
        ("folder", "/s", "train", {}),
        ("csv", "", "list", {}),
        ("csv", "", None, {"list_file": str(local / "list.csv")}),
    ]
    for dataset, below, split, options in asked:
        here = load_manifest(dataset, f"{local}{below}", split, **options)
        there = load_manifest(dataset, f"{url}{below}", split, **options)
        assert [item.id for item in here.items] == [item.id for item in there.items], dataset
        assert [item.label for item in here.items] == [item.label for item in there.items]
        assert here.notes == there.notes
        for a, b in zip(here.items, there.items):
            assert b.path == a.path.replace(str(local), url)
    inside = load_manifest("hdf5", url).items[0].path
    expected = read_frames(videos / "a/000.mp4", [0, 5])
    np.testing.assert_array_equal(read_frames(inside, [0, 5]), expected)


def test_training_reads_a_bucket(videos, bucket, tmp_path):
    """With and without copies on a local disk the same as from a local store."""
    store = f"{bucket}/learnt"
    assert mme([*words(videos, store, "--serial"), *LONG]) == 0
    s3fs.S3FileSystem().get(store, str(tmp_path / "local"), recursive=True)
    size = copy_shards(store, tmp_path / "disk", keep_free=0).size
    copies = copies_folder(store, tmp_path / "disk")
    assert content(store).keys() < content(copies).keys()
    less = copy_shards(store, tmp_path / "less", limit_gb=0.7e-9 * size, keep_free=0)
    assert less.shards in (1, 2)
    losses = []
    for number, url in enumerate([tmp_path / "local", store, store]):
        more = [f"data.stage={tmp_path / 'disk'}"] if number == 2 else []
        run = ["--config", "tiny.yaml", f"store={url}", f"out={tmp_path / str(number)}"]
        fast = ["device=cpu", "optim.steps=2", f"data.workers={int(number == 1)}"]
        # a process of its own: this one's workers may have begun with an earlier environment
        command = [sys.executable, "-m", "mme_core", "pretrain", *run, *fast, *more]
        assert subprocess.run(command).returncode == 0
        rows = read_metrics(tmp_path / str(number))
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 2


def test_clips_from_video_files_in_a_bucket(videos, remote_videos, tmp_path):
    assert mme([*words(videos, tmp_path, "--serial"), *LONG]) == 0
    options = {"frames": 4, "image_size": 32, "source": "video", "seed": 1}
    here, there = (ClipDataset(tmp_path, root=root, **options) for root in (videos, remote_videos))
    for name, value in here[1].items():
        assert there[1][name].equal(value), name
    with pytest.raises(UsageError, match=r"nowhere/a/000\.mp4: no such file; set root=…"):
        ClipDataset(tmp_path, root=f"{remote_videos}/nowhere", **options)


class Forbid(BaseHTTPRequestHandler):
    """An S3 endpoint that knows nobody."""

    def do_GET(self):
        text = b"<Error><Code>InvalidAccessKeyId</Code><Message>Unknown key</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_HEAD(self):
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def forbidding(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Forbid)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()


def one_line(capsys, url):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and url in error and "check that the bucket" in error
    return error


def test_a_bucket_that_is_not_there(videos, bucket, capsys):
    assert mme([*words(videos, "s3://nowhere/x", "--serial"), *SPEC]) == 1
    assert "bucket does not exist" in one_line(capsys, "s3://nowhere/x")


def test_credentials_that_are_not_known(bucket, forbidding, capsys):
    assert mme(["info", "s3://targets/x"]) == 1
    assert "Forbidden" in one_line(capsys, "s3://targets/x")


def test_an_endpoint_that_is_not_there(bucket, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert mme(["info", "s3://targets/x"]) == 1
    one_line(capsys, "s3://targets/x")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("reads", [0, 1])
def test_a_connection_that_fails_is_not_the_fault_of_the_video(videos, monkeypatch, reads):
    memory, read, calls = fsspec.filesystem("memory"), RemoteFile.read, []
    memory.pipe_file("/broken/a.mp4", (videos / "a/000.mp4").read_bytes())

    def failing(self, size=-1):
        calls.append(size)
        if len(calls) > reads:
            self._file = None  # any error but a missing file
        return read(self, size)

    with Video("memory://broken/a.mp4") as video:
        assert len(list(video)) == 12
    monkeypatch.setattr(RemoteFile, "read", failing)
    with pytest.raises(StoreError, match=r"memory://broken/a\.mp4: "):
        list(Video("memory://broken/a.mp4"))
    memory.rm("/broken", recursive=True)


def test_a_file_that_cannot_be_opened_is_thrown_away_in_silence():
    """Python closes what it throws away, and since 3.13 prints what goes wrong then."""
    never_opened = RemoteFile.__new__(RemoteFile)
    never_opened.close()
    assert never_opened.closed


def test_a_writer_that_died_leaves_nothing_in_the_shard_of_its_successor(tmp_path):
    """Its video took the process down, and is not in the shard that is written next."""
    url = "memory://strays"
    dead = ShardWriter(url, 0, MADE_UP)
    dead.begin_video()
    for tubelet in tubelets(1, 5) * 60:
        dead.append(tubelet)
    make_store(url, [{"a": 3}])
    make_store(tmp_path / "local", [{"a": 3}])
    try:
        assert content(url) == content(tmp_path / "local")
    finally:
        fsspec.filesystem("memory").rm("/strays", recursive=True)


@pytest.mark.parametrize(
    ("root", "path", "stored"),
    [
        ("/set", "/set/a/1.mp4", "a/1.mp4"),
        ("/set", "/other/1.mp4", "/other/1.mp4"),
        ("/set", "s3://set/a/1.mp4", "s3://set/a/1.mp4"),
        ("s3://set", "s3://set/a/1.mp4", "a/1.mp4"),
        ("s3://set", "s3://settings/1.mp4", "s3://settings/1.mp4"),
    ],
)
def test_paths_in_the_table(root, path, stored):
    assert relative(path, root) == stored
    assert join(root, stored) == path
    assert os.fspath(Path(join("", "a/1.mp4"))) == "a/1.mp4"
