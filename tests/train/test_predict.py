from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
import torch
from motion import render, translation
from odd_videos import write_parts

from mme_core.errors import UsageError, VideoError
from mme_core.model import build_classifier
from mme_core.weights.save import save_weights
from train.predict import draw, main
from train.scoring import metrics


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_classifier("tiny", 7, depth=1, frames=4, image_size=32)
    torch.nn.init.normal_(model.head.weight)
    folder = tmp_path_factory.mktemp("weights")
    save_weights(
        folder / "model.safetensors",
        model.state_dict(),
        frames=4,
        image_size=32,
        class_names=[f"class {i}" for i in range(7)],
    )
    return folder


def test_five_best_classes_and_a_picture(labelled_set, weights, tmp_path, capsys):
    video = labelled_set / "val" / "left" / "0.mp4"
    picture = tmp_path / "p.png"
    assert main([str(video), "--weights", str(weights), "-o", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(video)
    scores = [float(line.split("%")[0]) for line in lines[1:]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert lines[1].split(None, 1)[1].startswith("class ")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_several_videos_go_to_a_folder(labelled_set, weights, tmp_path):
    videos = [str(labelled_set / "val" / "left" / f"{i}.mp4") for i in range(2)]
    assert main([*videos, "--weights", str(weights), "--clips", "1", "-o", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


def test_wrong_input_is_explained(labelled_set, weights, tmp_path):
    video = str(labelled_set / "val" / "left" / "0.mp4")
    with pytest.raises(UsageError, match="--clips and --crops"):
        main([video, "--weights", str(weights), "--clips", "0"])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        main([str(tmp_path / "broken.mp4"), "--weights", str(weights)])
    with pytest.raises(VideoError):
        main([str(tmp_path / "absent.mp4"), "--weights", str(weights)])
    picture = str(tmp_path / "p.foo")
    with pytest.raises(UsageError, match=r"must end in \.png"):
        main([video, "--weights", str(weights), "-o", picture])
    several = [video, str(labelled_set / "val" / "right" / "1.mp4")]
    for name in ("p.png", "p.JPG"):
        with pytest.raises(UsageError, match="2 videos have a picture each: name a folder"):
            main([*several, "--weights", str(weights), "-o", str(tmp_path / name)])
        assert not (tmp_path / name).exists()
    twins = [video, str(labelled_set / "val" / "right" / "0.mp4")]
    with pytest.raises(UsageError, match=r"two pictures would be 0\.png"):
        main([*twins, "--weights", str(weights), "-o", str(tmp_path)])


def test_a_video_that_cannot_be_read_does_not_stop_the_others(
    labelled_set, weights, tmp_path, capsys
):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos = [str(tmp_path / "broken.mp4"), str(labelled_set / "val" / "left" / "0.mp4")]
    with pytest.raises(VideoError, match=r"broken\.mp4: "):
        main([*videos, "--weights", str(weights), "--clips", "1"])
    assert capsys.readouterr().out.startswith(videos[1])


def test_every_kind_of_bad_video_is_listed_at_the_end(labelled_set, weights, tmp_path, capsys):
    moving = render(translation(1.5, 0), 12, 64, 96, finest=6)
    glued = write_parts(tmp_path / "glued.ts", [moving, moving[:4, :48, :64]])
    cv2.imwrite(str(tmp_path / "cover.jpg"), moving[0])
    good = str(labelled_set / "val" / "left" / "0.mp4")
    bad = [str(tmp_path / "cover.jpg"), "nowhere://a.mp4", str(tmp_path)]
    with pytest.raises(
        VideoError, match=r"^3 of 5 videos cannot be used: .*still picture"
    ) as caught:
        main([bad[0], good, *bad[1:], str(glued), "--weights", str(weights), "--clips", "2"])
    assert all(name in str(caught.value) for name in bad)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if not line.startswith(" ")] == [good, str(glued)]


def test_a_url_and_a_name_that_begins_with_a_dash(
    labelled_set, weights, tmp_path, capsys, monkeypatch
):
    data = (labelled_set / "val" / "left" / "0.mp4").read_bytes()
    (tmp_path / "-id.mp4").write_bytes(data)
    with fsspec.open("memory://predict/a.mp4", "wb") as file:
        file.write(data)
    monkeypatch.chdir(tmp_path)
    videos = ["-id.mp4", "memory://predict/a.mp4"]
    assert main([*videos, "--weights", str(weights), "--clips", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "./-id.mp4" and printed[6] == "memory://predict/a.mp4"
    assert printed[1:6] == printed[7:]


def test_pictures_of_long_names_are_whole(weights, tmp_path, recwarn):
    names = [f"Pretending to put something behind something, number {i}" for i in range(5)]
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    draw(tmp_path / "p.png", Path("$x$" * 60), frames, [(name, 0.2) for name in names])
    metrics.draw_confusion(tmp_path / "c.png", np.eye(5, dtype=int), names)
    assert not recwarn  # matplotlib warns where labels leave no room
    assert metrics.as_label(names[3], 30) == "Pretending…something, number 3"
    assert metrics.as_label("a $ b", 30) == r"a \$ b"
