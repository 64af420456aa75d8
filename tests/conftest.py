"""Fixtures that several test modules use."""

import signal
import uuid
from pathlib import Path

import pytest
from stores import write_store

# nohup and the background of a shell ignore these; the tests' processes must hear them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory) -> Path:
    """A store of six small demo videos (72 frames, a class each)."""
    from mme_core.datasets import demo
    from mme_core.spec import TargetSpec

    root = tmp_path_factory.mktemp("demo")
    items = demo.load(str(root / "videos"), None, videos=6).items
    spec = TargetSpec(short_side=64, long_side=80, flow="dis-ultrafast")
    return write_store(root / "store", [Path(item.path) for item in items], spec)


@pytest.fixture(scope="session")
def held_out_store(tmp_path_factory) -> Path:
    """A store like `demo_store` of the next videos of the same six classes."""
    from mme_core.datasets import demo
    from mme_core.spec import TargetSpec

    root = tmp_path_factory.mktemp("held_out")
    items = demo.load(str(root / "videos"), None, videos=16).items
    paths = [Path(item.path) for item in items if 10 <= int(Path(item.path).stem) < 16]
    spec = TargetSpec(short_side=64, long_side=80, flow="dis-ultrafast")
    return write_store(root / "store", paths, spec)


@pytest.fixture(scope="session")
def pan(tmp_path_factory) -> Path:
    """A video file of 40 frames, 64×96, that moves by (1.4, −0.6) pixels a frame."""
    import motion

    path = tmp_path_factory.mktemp("pan") / "pan.mp4"
    motion.write_video(path, motion.render(motion.translation(1.4, -0.6), 40, 64, 96, finest=5))
    return path


@pytest.fixture(scope="session")
def labelled_set(tmp_path_factory) -> Path:
    """Folder of 12 training and 6 held-out video files of two classes (12 frames, 32×48)."""
    from labelled import write_set

    return write_set(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket on a local server that speaks S3."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        name = f"targets-{uuid.uuid4()}"  # the servers of one process share their content
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def labelled_store(labelled_set, tmp_path) -> Path:
    """A store of the held-out videos, of which stage 1 set one more aside."""
    from mme_core.spec import TargetSpec
    from mme_core.store.writer import ShardWriter

    spec = TargetSpec(stride=2, short_side=32, long_side=48, length=2, flow="dis-ultrafast")
    paths = sorted((labelled_set / "val").rglob("*.mp4"))
    url = write_store(tmp_path / "store", paths, spec)
    with ShardWriter(url, 1, spec) as writer:
        writer.quarantine({"id": "left/9.mp4", "path": "left/9.mp4", "reason": "too short"})
    return url
