"""`mme visualize` with every output format, layer and source. Errors name the mend."""

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from small_files import SPEC, write_tree
from stores import write_store

from mme_core import cli, viz
from mme_core.errors import StoreError, UsageError
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.viz import film
from mme_core.viz.playback import HOLD, Tracks, tracks_picture
from preprocess import visualize


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(images), stream.codec_context.name, float(stream.average_rate)


def run(store, out, *options):
    assert visualize.main([str(store), "-o", str(out), *options]) == 0
    return out


@pytest.fixture(scope="module")
def no_frames(tmp_path_factory, demo_store):
    """A store without frames, and the video file behind it."""
    folder = tmp_path_factory.mktemp("gone")
    source = Path(TargetStore(demo_store).videos[0]["path"])
    path = folder / source.parent.name / source.name
    path.parent.mkdir()
    path.write_bytes(source.read_bytes())
    spec = TargetSpec(short_side=64, long_side=80, flow="dis-ultrafast", frames="none")
    return write_store(folder / "store", [path], spec, root=folder), path


def test_film_shows_every_raw_frame_of_the_window(demo_store, tmp_path):
    out = run(demo_store, tmp_path / "a" / "out.mp4", "--tubelets", "2", "--layer", "tracks")
    images, codec, rate = decode(out)
    assert codec == "h264" and len(images) == 16 and rate == pytest.approx(30)
    assert images.shape[1] >= 256 and images.shape[2] >= 320


def test_film_of_stored_frames_has_their_rate(demo_store, tmp_path):
    options = ["--tubelets", "3", "--layer", "flow", "--source", "store"]
    images, _, rate = decode(run(demo_store, tmp_path / "out.mp4", *options))
    assert len(images) == 6 and rate == pytest.approx(30 / 4, rel=0.01)


def test_gif_is_looped_and_has_all_pictures(demo_store, tmp_path):
    options = ["--tubelets", "1", "--layer", "arrows", "--source", "store", "--scale", "1"]
    out = run(demo_store, tmp_path / "out.gif", *options)
    images, codec, _ = decode(out)
    assert codec == "gif" and len(images) == 2
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in out.read_bytes()  # 0: for ever


def test_sheet_has_tubelet_columns_and_layer_rows(demo_store, tmp_path):
    small = ["--scale", "2", "--tubelets", "2"]
    one = cv2.imread(str(run(demo_store, tmp_path / "1.png", "--layer", "hog", *small)))
    four = cv2.imread(str(run(demo_store, tmp_path / "4.png", *small)))
    assert one.shape[1] == four.shape[1] == 2 * 160 + 4
    assert four.shape[0] - one.shape[0] == 3 * (128 + 4)


def test_video_is_chosen_by_id_and_start(demo_store, tmp_path):
    name = str(TargetStore(demo_store).videos["id"][3])
    options = ["--tubelets", "1", "--layer", "tracks", "--scale", "1"]
    first = run(demo_store, tmp_path / "1.png", *options)
    other = run(demo_store, tmp_path / "2.png", *options, "--video", name)
    later = run(demo_store, tmp_path / "3.png", *options, "--video", name, "--start", "5")
    assert len({path.read_bytes() for path in (first, other, later)}) == 3


def test_source_frames_are_the_stored_frames(demo_store):
    store = TargetStore(demo_store)
    kept = visualize.load_clip(store, None, 1, 2, "store", None)
    dense = visualize.load_clip(store, None, 1, 2, "video", None)
    assert kept.times == (0, 4, 8, 12) and dense.times == tuple(range(16))
    difference = kept.frames.astype(int) - dense.frames[list(kept.times)]
    assert np.abs(difference).mean() < 6  # JPEG, and nothing else


def test_window_ends_with_the_video(demo_store):
    store = TargetStore(demo_store)
    last = int(store.videos[0]["count"]) - 1
    clip = visualize.load_clip(store, None, last, 8, "auto", None)
    assert len(clip.tracks.points) == 1 and len(clip.frames) == 8


def test_unknown_video_suggests_similar_ids(demo_store, tmp_path):
    name = str(TargetStore(demo_store).videos["id"][2])
    with pytest.raises(UsageError, match=name):
        run(demo_store, tmp_path / "out.png", "--video", name.replace("0", "O", 1))
    with pytest.raises(UsageError, match=name):
        run(demo_store, tmp_path / "out.png", "--video", Path(name).stem)


@pytest.mark.parametrize(
    "options",
    [
        ["--start", "999"],
        ["--start", "-1"],
        ["--tubelets", "0"],
        ["--scale", "0"],
        ["--scale", "100000"],
        ["--fps", "0"],
        ["--fps", "nan"],
    ],
)
def test_bad_numbers_are_named(demo_store, tmp_path, options):
    with pytest.raises(UsageError, match=options[0].strip("-")):
        run(demo_store, tmp_path / "out.png", *options)


def test_unknown_file_ending_is_refused_first(tmp_path):
    with pytest.raises(UsageError, match=r"\.mp4, \.gif or \.png"):
        run("no-store", tmp_path / "out.webm")


def test_store_without_frames_draws_on_the_file(no_frames, tmp_path):
    store, _ = no_frames
    run(store, tmp_path / "out.png", "--layer", "tracks", "--tubelets", "1")
    with pytest.raises(StoreError, match="keeps no frames"):
        run(store, tmp_path / "out.png", "--source", "store")


def test_missing_file_is_named_and_found_with_root(no_frames, tmp_path):
    store, path = no_frames
    moved = tmp_path / "elsewhere" / path.parent.name / path.name
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    try:
        with pytest.raises(StoreError, match=f"{path.name}.*--root.*keeps no frames"):
            run(store, tmp_path / "out.png")
        options = ["--root", str(tmp_path / "elsewhere"), "--tubelets", "1", "--layer", "tracks"]
        run(store, tmp_path / "out.png", *options)
    finally:
        moved.rename(path)


def test_a_colon_in_a_name_is_no_container(tmp_path):
    root = write_tree(tmp_path / "videos", 1, ("a",))
    (root / "a/000.mp4").rename(root / "a/x::y.mp4")
    store = tmp_path / "store"
    words = ["--dataset", "folder", "--root", str(root), "--store", str(store), "--serial"]
    assert cli.main(["flows", *words, *SPEC]) == 0
    assert run(store, tmp_path / "out.png", "--source", "video").exists()


def test_a_damaged_line_of_the_ledger_is_passed_over(tmp_path):
    torn = '{"path": "/x/a.mp4", "id": "a.mp4", "sta'
    whole = '{"path": "/y/a.mp4", "id": "a.mp4", "status": "ok"}'
    (tmp_path / "ledger.jsonl").write_text(f"{torn}\n{whole}\n")
    assert visualize.locate({"id": "a.mp4", "path": "a.mp4"}, None, str(tmp_path)) == "/y/a.mp4"


def still_tracks(length=6, n=2):
    spec = TargetSpec(length=length)
    points = np.zeros((n, 2, 2, 4, length + 1, 2), np.float32)
    points[..., 0] = 4 + np.arange(length + 1)
    points[..., 1] = 20 * np.arange(n)[:, None, None, None, None] + 5
    moves, hog = np.diff(points, axis=-2), np.zeros((n, 2, 2, 4, length, 9), np.float32)
    return Tracks(points, moves, hog, np.ones((n, 2, 2, 4), bool), spec)


def test_tail_grows_with_time_then_fades_away():
    tracks, dark = still_tracks(), np.zeros((32, 32, 3), np.uint8)
    ink = [
        int((tracks_picture(tracks, dark, time, 1.0, 1).max(-1)[:8] > 60).sum())
        for time in range(16)
    ]
    assert ink[1] < ink[3] < ink[6]
    assert ink[6 + HOLD + 2] < ink[6] and ink[15] == 0


def test_future_positions_are_not_drawn():
    tracks, dark = still_tracks(), np.zeros((32, 32, 3), np.uint8)
    far = replace(tracks, points=tracks.points.copy())
    far.points[..., 4:, 0] += 12
    early = [tracks_picture(each, dark, 3, 1.0, 1) for each in (tracks, far)]
    assert (early[0] == early[1]).all()


def test_overlapping_tubelets_are_drawn_together():
    """With stride 2, a trajectory of 6 steps ends in the next tubelet."""
    spec = replace(still_tracks().spec, stride=2, hop=4)
    tracks = replace(still_tracks(), spec=spec)
    picture = tracks_picture(tracks, np.zeros((32, 32, 3), np.uint8), 5, 1.0, 1).max(-1)
    assert (picture[:8] > 100).any() and (picture[20:] > 100).any()


def test_film_refuses_what_it_cannot_write(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="webm"):
        film.write_film(tmp_path / "a.webm", [picture], 5)
    with pytest.raises(Exception, match="no picture to write"):
        film.write_film(tmp_path / "a.mp4", [], 5)


def test_png_keeps_the_colours(tmp_path):
    wheel = viz.wheel(33)
    film.write_png(tmp_path / "w.png", wheel)
    assert (cv2.imread(str(tmp_path / "w.png"))[..., ::-1] == wheel).all()


def test_an_id_may_begin_with_a_dash(demo_store):
    for words in (["--video", "-id.mp4"], ["--video=-id.mp4"]):
        assert visualize.parse(["store", *words, "-o", "x.png"]).video == "-id.mp4"
    with pytest.raises(UsageError, match=r"no video '-id\.mp4' in the store"):
        visualize.main([str(demo_store), "--video", "-id.mp4", "-o", "x.png"])
