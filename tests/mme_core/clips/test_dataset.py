from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from motion import render, translation, write_video
from odd_videos import write_parts
from stores import write_store

from mme_core.clips.dataset import ClipDataset, collate
from mme_core.clips.trajectories import stored_to_raw
from mme_core.errors import StoreError, UsageError, VideoError
from mme_core.spec import TargetSpec
from mme_core.store.target_store import TargetStore, open_or_create_store
from mme_core.targets import unpack_valid
from train.data.loader import make_loader
from train.data.sampler import ClipSampler

SPEC = TargetSpec(stride=2, length=4, short_side=96, long_side=128, camera="homography")
VELOCITY = (1.5, -0.75)  # canvas pixels a raw frame
SMALL = {"frames": 8, "image_size": 80}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four videos of 44 frames and 128×96, the last of 14 (3 tubelets); a drifting texture."""
    root = tmp_path_factory.mktemp("texture")
    paths = []
    for number in range(4):
        count = 44 if number < 3 else 14
        grey = render(translation(*VELOCITY), count, 96, 128, seed=number)
        path = root / "drift" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        # red above green above blue, so that a swap of channels is seen
        write_video(path, [np.stack([f, f // 2 + 30, f // 4], -1) for f in grey])
        paths.append(path)
    return TargetStore(write_store(root / "store", paths, SPEC))


def root_of(store):
    """Folder of its videos."""
    return Path(store.url).parent


def batch_of(sample):
    return collate([sample])


def equal(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_sample_has_the_promised_tensors(store):
    sample = ClipDataset(store, **SMALL)[1]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample.items()}
    assert shapes == {
        "frames": ((8, 80, 80, 3), torch.uint8),
        "position": ((4, 5, 5, 4, 4, 2), torch.int8),
        "shape": ((4, 5, 5, 4, 4, 9), torch.int8),
        "moments": ((4, 5, 5, 6), torch.float32),
        "valid": ((4, 5, 5), torch.uint8),
        "flip": ((), torch.bool),
        "mask": ((100,), torch.bool),
        "homography": ((4, 4, 3, 3), torch.float32),
        "origin": ((2,), torch.float32),
        "video": ((), torch.int64),
        "start": ((), torch.int64),
        "label": ((), torch.int64),
    }
    assert sample["video"] == 1 and sample["label"] == 0
    assert sample["mask"].sum() == 4 * round(0.7 * 25)


@pytest.mark.parametrize("source", ["store", "video"])
def test_without_draws_a_sample_is_the_stores_middle(store, source):
    data = ClipDataset(
        store, **SMALL, training=False, source=source, root=root_of(store), zoom=(4, 6)
    )
    sample = data[0]
    count = store.videos[0]["count"]
    window = store.read(0, int(sample["start"]), 4)
    assert int(sample["start"]) == (count - 4) // 2
    middle = window.crop(0, 1, 5, 5)
    np.testing.assert_array_equal(sample["origin"], [16, 0])
    raw = stored_to_raw(batch_of(sample), SPEC)
    np.testing.assert_allclose(raw.displacement[0], middle.displacement, atol=1e-5)
    np.testing.assert_array_equal(raw.valid[0], middle.valid)
    difference = sample["frames"].numpy().astype(int) - middle.frames
    # quality 90 and half the chroma: the same frame and channels, not the same bytes
    assert np.abs(difference).mean() < (0.1 if source == "store" else 4)
    assert equal(sample, data[7, 0])


@pytest.mark.parametrize("zoom", [(), (4, 4), (6, 6)])
@pytest.mark.parametrize("flip", [False, True])
def test_targets_lead_from_one_frame_to_the_next(store, zoom, flip):
    """Each point's surroundings in a tubelet's first frame are found where its target leads."""
    data = ClipDataset(store, **SMALL, zoom=zoom, flip=flip)
    sample = next(s for s in (data[epoch, 0] for epoch in range(50)) if s["flip"] == flip)
    raw = stored_to_raw(batch_of(sample), SPEC)
    moved = raw.displacement[0, ..., : SPEC.stride, :].sum(-2)
    scale = 5 / (zoom[0] if zoom else 5)
    expected = SPEC.stride * scale * np.array(VELOCITY) * [-1 if flip else 1, 1]
    valid = raw.valid[0]
    assert valid.float().mean() > 0.6
    errors = (moved[valid] - torch.tensor(expected)).abs()
    assert errors.median() < 0.1 and errors.mean() < 0.3
    start = np.stack(np.meshgrid([3.5, 11.5], [3.5, 11.5]), -1).reshape(4, 2)
    still, followed = [], []
    for t, i, j, k in np.argwhere(valid.numpy()):
        first, second = (image[..., 0].numpy() for image in sample["frames"][2 * t : 2 * t + 2])
        point = start[k] + [16 * j, 16 * i]
        end = point + moved[t, i, j, k].numpy()
        if not (point.min() > 8 and point.max() < 72 and end.min() > 8 and end.max() < 72):
            continue
        patch = cv2.getRectSubPix(first, (9, 9), point).astype(float)
        still.append(np.abs(cv2.getRectSubPix(second, (9, 9), point) - patch).mean())
        followed.append(np.abs(cv2.getRectSubPix(second, (9, 9), end) - patch).mean())
    assert len(followed) > 50
    assert np.mean(followed) < 0.25 * np.mean(still)


@pytest.mark.parametrize("zoom", [(), (4, 4)])
def test_the_cameras_motion_explains_a_drifting_texture(store, zoom):
    for epoch in range(3):
        sample = ClipDataset(store, **SMALL, zoom=zoom)[epoch, 0]
        raw = stored_to_raw(batch_of(sample), SPEC, camera=True)
        assert raw.displacement[raw.valid].abs().median() < 0.1


def test_a_zoom_of_the_models_size_equals_no_zoom(store):
    plain = stored_to_raw(batch_of(ClipDataset(store, **SMALL)[2]), SPEC)
    zoomed = stored_to_raw(batch_of(ClipDataset(store, **SMALL, zoom=(5, 5))[2]), SPEC)
    for a, b in zip(plain, zoomed):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_draws_depend_on_seed_epoch_and_video_alone(store):
    data = ClipDataset(store, **SMALL)
    data[5, 1]
    assert equal(data[3, 2], ClipDataset(store, **SMALL)[3, 2])
    assert equal(data[0, 2], data[2])
    draws = [data[epoch, 2] for epoch in range(20)]
    for name in ("start", "flip", "origin"):
        assert len({tuple(np.atleast_1d(sample[name])) for sample in draws}) > 1
    assert not torch.equal(draws[0]["mask"], draws[1]["mask"])
    other = [ClipDataset(store, **SMALL, seed=1)[epoch, 2] for epoch in range(20)]
    assert not all(equal(a, b) for a, b in zip(draws, other))


def test_every_start_is_drawn_and_none_leaves_the_video(store):
    data = ClipDataset(store, frames=18, image_size=32)
    count = store.videos[0]["count"]
    starts = {int(data[epoch, 0]["start"]) for epoch in range(40)}
    assert starts == set(range(count - 8))


@pytest.mark.parametrize("source", ["store", "video"])
def test_a_short_video_repeats_its_last_frame_without_valid_targets(store, source):
    sample = ClipDataset(store, **SMALL, source=source, root=root_of(store), flip=False)[3]
    frames, valid = sample["frames"], unpack_valid(sample["valid"].numpy(), 4)
    assert store.videos[3]["count"] == 3 and sample["start"] == 0
    assert valid[0].any() and not valid[3].any()
    assert torch.equal(frames[6], frames[5]) and torch.equal(frames[7], frames[5])
    assert not torch.equal(frames[4], frames[5])


def test_clips_may_be_longer_than_every_video(store):
    data = ClipDataset(store, frames=64, image_size=80, flip=False)
    valid = unpack_valid(data[0]["valid"].numpy(), 4)
    count = store.videos[0]["count"]
    assert data.short_videos == len(store.videos) and ClipDataset(store, **SMALL).short_videos == 1
    assert valid[: count - 1].any() and not valid[count:].any()


@pytest.mark.parametrize(("name", "codec"), [("0.mp4", "libx264"), ("0.avi", "mpeg4")])
def test_an_overlapping_time_line_is_read_with_its_step(tmp_path, name, codec):
    """hop = stride: the tubelets of a clip are every second one, its frames not doubled.

    In the AVI file, whose timestamps are not trusted, the frames are counted.
    """
    path = tmp_path / "a" / name
    path.parent.mkdir()
    options = {"qscale": "2"} if codec == "mpeg4" else None
    write_video(path, render(translation(1, 0), 32, 64, 64), codec, options=options)
    spec = TargetSpec(stride=2, hop=2, length=2, short_side=64, long_side=64)
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    options = {"frames": 8, "image_size": 64, "flip": False}
    stored = ClipDataset(store, **options)[3, 0]
    filed = ClipDataset(store, **options, source="video", root=tmp_path)[3, 0]
    assert stored["start"] > 0
    apart = (stored["frames"].int() - filed["frames"].int()).abs().float().mean((1, 2, 3))
    assert apart.max() < 2  # quality 90
    step = stored["frames"].float().diff(dim=0).abs().mean((1, 2, 3))
    assert (step > 0.5 * step.max()).all()  # evenly spaced in time


def test_crops_of_a_clip_share_its_window_only(store):
    data = ClipDataset(store, **SMALL, crops=3)
    sample = data[0]
    assert sample["frames"].shape == (3, 8, 80, 80, 3)
    assert len(set(sample["start"].tolist())) == 1
    assert not torch.equal(sample["mask"][0], sample["mask"][1])
    batch = collate([data[0], data[1]])
    assert batch["frames"].shape == (6, 8, 80, 80, 3)
    assert batch["video"].tolist() == [0, 0, 0, 1, 1, 1]


def test_center_crop_keeps_the_random_window(store):
    samples = [ClipDataset(store, **SMALL, crop="center")[epoch, 0] for epoch in range(10)]
    assert {tuple(sample["origin"].tolist()) for sample in samples} == {(16, 0)}
    assert len({int(sample["start"]) for sample in samples}) > 1


def test_batches_do_not_depend_on_the_workers(store):
    def batches(workers):
        sampler = ClipSampler(len(store.videos), 2, seed=4)
        loader = make_loader(ClipDataset(store, **SMALL, crops=2), sampler, collate, workers)
        batches = iter(loader)
        return [next(batches) for _ in range(5)]

    for one, two in zip(batches(0), batches(2)):
        assert equal(one, two)
        assert one["frames"].is_contiguous() and one["frames"].shape[0] == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_meets_is_said_in_one_line(tmp_path, workers):
    path = tmp_path / "a" / "0.mp4"
    path.parent.mkdir()
    write_video(path, render(translation(1, 0), 16, 64, 64))
    spec = TargetSpec(stride=2, length=4, short_side=64, long_side=64)
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    data = ClipDataset(store, frames=8, image_size=64, source="video", root=tmp_path)
    path.unlink()
    loader = make_loader(data, ClipSampler(1, 1), collate, workers)
    with pytest.raises(VideoError, match=r"^a/0\.mp4, which is in the store: [^\n]*no such file$"):
        next(iter(loader))


def test_a_single_pass_ends(store):
    data = ClipDataset(store, **SMALL, training=False)
    sampler = ClipSampler(len(data), 3, endless=False)
    sizes = [len(batch["video"]) for batch in make_loader(data, sampler, collate)]
    assert sizes == [3, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 7}, r"^frames=7 must be an even number"),
        ({"image_size": 224}, r"^image_size=224 .* 14×14 .* drift/0\.mp4 .* 6×8 .*=96"),
        ({"image_size": 72}, r"multiple of the store's spec\.patch=16"),
        ({"zoom": (7, 9)}, r"^zoom=\[7, 9\] needs 7×7"),
        ({"zoom": (4,)}, r"^zoom=\[4\] must be"),
        ({"crop": "left"}, r"^crop=left is not one of"),
        ({"crops": 0}, r"^crops=0"),
        ({"mask": "none"}, r"^mask=none is not one of tube"),
        ({"mask_ratio": 1.0}, r"^ratio=1\.0"),
        ({"source": "disk"}, r"^source=disk is not one of"),
        ({"seed": -1}, r"^seed=-1 must be at least 0"),
    ],
)
def test_what_a_store_cannot_serve_is_refused(store, options, message):
    with pytest.raises(UsageError, match=message):
        ClipDataset(store, **{**SMALL, **options})


def test_stores_without_frames_or_videos_are_refused(tmp_path):
    path = tmp_path / "a" / "0.mp4"
    path.parent.mkdir()
    write_video(path, render(translation(1, 0), 32, 64, 64))
    spec = TargetSpec(stride=2, short_side=64, long_side=64, frames="none")
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    options = {"frames": 8, "image_size": 64}
    with pytest.raises(UsageError, match=r"spec\.frames=none.*source=video"):
        ClipDataset(store, **options)
    options |= {"source": "video", "root": tmp_path}
    assert ClipDataset(store, **options)[0]["frames"].shape == (8, 64, 64, 3)
    path.unlink()
    with pytest.raises(UsageError, match=r"0\.mp4: no such file; set root=…"):
        ClipDataset(store, **options)
    options = {"frames": 8, "image_size": 64}
    open_or_create_store(tmp_path / "empty", spec, "folder", None, [])
    with pytest.raises(StoreError, match="no finished shard"):
        ClipDataset(tmp_path / "empty", **options)
    with pytest.raises(StoreError, match="does not exist"):
        ClipDataset(tmp_path / "nowhere", **options)


def test_a_video_file_that_changed_is_named(tmp_path):
    path = tmp_path / "a" / "0.mp4"
    path.parent.mkdir()
    write_video(path, render(translation(1, 0), 32, 64, 64))
    spec = TargetSpec(stride=2, length=4, short_side=64, long_side=64)
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    data = ClipDataset(store, frames=8, image_size=64, source="video", root=tmp_path)
    write_video(path, render(translation(1, 0), 32, 64, 80))
    with pytest.raises(VideoError, match=r"a/0\.mp4, .* 80×64 and were 64×64"):
        data[0]
    path.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"a/0\.mp4, which is in the store: "):
        data[0]


def test_frames_of_videos_inside_hdf5_files(tmp_path):
    path = tmp_path / "a" / "0.mp4"
    path.parent.mkdir()
    write_video(path, render(translation(1, 0), 32, 64, 64))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["a/0.mp4"] = np.frombuffer(path.read_bytes(), np.uint8)
    inside = tmp_path / "all.h5::a" / "0.mp4"
    spec = TargetSpec(stride=2, length=4, short_side=64, long_side=64)
    store = TargetStore(write_store(tmp_path / "store", [inside], spec))
    options = {"frames": 8, "image_size": 64}
    filed = ClipDataset(store, **options, source="video", root=tmp_path)[0]
    difference = filed["frames"].int() - ClipDataset(store, **options)[0]["frames"].int()
    assert difference.abs().float().mean() < 4


def test_frames_of_videos_that_are_folders_of_pictures(tmp_path):
    folder = tmp_path / "a" / "0"
    folder.mkdir(parents=True)
    for number, image in enumerate(render(translation(1, 0), 16, 64, 64), 1):
        cv2.imwrite(str(folder / f"{number:05d}.png"), image)
    spec = TargetSpec(stride=2, length=4, short_side=64, long_side=64)
    store = TargetStore(write_store(tmp_path / "store", [folder], spec))
    options = {"frames": 8, "image_size": 64}
    filed = ClipDataset(store, **options, source="video", root=tmp_path)[0]
    difference = filed["frames"].int() - ClipDataset(store, **options)[0]["frames"].int()
    assert difference.abs().float().mean() < 4


@pytest.mark.parametrize("between", [0, 5], ids=["restarted clock", "another size between"])
def test_frames_of_glued_recordings_are_found(tmp_path, between):
    """The first recording has the size and the timestamps of the second one."""
    first, second = (render(translation(1, 0), count, 64, 64, seed=count) for count in (12, 20))
    path = tmp_path / "a" / "0.ts"
    path.parent.mkdir()
    write_parts(path, [first, first[:between, :48, :48], second][:: 1 if between else 2])
    spec = TargetSpec(stride=2, length=4, short_side=64, long_side=64)
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    options = {"frames": 4, "image_size": 64, "training": False}
    filed = ClipDataset(store, **options, source="video", root=tmp_path)[0]
    difference = filed["frames"].int() - ClipDataset(store, **options)[0]["frames"].int()
    assert difference.abs().float().mean() < 5
