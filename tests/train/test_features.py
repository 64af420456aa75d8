import errno
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
import zarr
from labelled import write_set
from motion import render, translation
from odd_videos import write_aspect, write_turned

from mme_core import read_video
from mme_core.clips.views import to_model_input
from mme_core.encoder import load_encoder
from mme_core.errors import UsageError
from mme_core.io.video import open_video
from mme_core.model import build_pretraining_model
from train import features
from train.data.labelled import TestViews, ViewPlan
from train.data.sources import open_source
from train.recipes.classification import LabelledDataConfig


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(1)
    model = build_pretraining_model("tiny", depth=1, frames=4, image_size=32).eval()
    path = tmp_path_factory.mktemp("encoder") / "w.pt"
    recipe = {"model": {"frames": 4, "image_size": 32}}
    torch.save({"model": model.state_dict(), "config": recipe}, path)
    return path, model


def words(root, init, out):
    fixed = ["device=cpu", "data.dataset=folder", "data.workers=0", "data.stride=1", "split=val"]
    return [*fixed, f"data.root={root}", f"init={init}", f"out={out}", "view.clips=2"]


@torch.inference_mode()
def test_features_are_the_means_of_the_encoders_tokens(labelled_set, encoder, tmp_path):
    path, model = encoder
    assert features.main(words(labelled_set, path, tmp_path / "f.npz")) == 0
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (6, 2, 192)
        assert found["ids"][0] == "val/left/0.mp4"
        assert found["label"].tolist() == [0, 0, 0, 1, 1, 1]
        assert found["class_names"].tolist() == ["left", "right"]
        data = LabelledDataConfig(dataset="folder")
        source = open_source(data, None, root=str(labelled_set), split="val")
        views = TestViews(source, ViewPlan("dense", 1, 4, 32, clips=2, crops=1))[4]["views"]
        want = model.encode(to_model_input(views)).mean(1)
        np.testing.assert_allclose(found["features"][4], want, atol=1e-5)


def test_segment_features_are_those_of_load_encoder(labelled_set, encoder, tmp_path):
    asked = [*words(labelled_set, encoder[0], tmp_path / "f.npz")[:-1], "data.sampling=segment"]
    assert features.main([word for word in asked if word != "data.stride=1"]) == 0
    with open_video(labelled_set / "val" / "left" / "0.mp4") as video:
        frames = np.stack([frame.rgb() for frame in video])
    with np.load(tmp_path / "f.npz") as found:
        want = load_encoder(encoder[0]).features(frames)
        np.testing.assert_allclose(found["features"][0, 0], want, atol=1e-5)


def turned(path, frames):
    return write_turned(path, frames, (0, 1, -1, 0))


def of_wide_pixels(path, frames):
    return write_aspect(path, frames, Fraction(2))


@pytest.mark.parametrize("write", [turned, of_wide_pixels])
def test_segment_features_are_those_of_read_video(encoder, tmp_path, write):
    """Also where a decoder by itself shows the frames lying, or narrow."""
    (tmp_path / "set").mkdir()
    path = write(tmp_path / "set" / "a.mp4", render(translation(3, 1), 12, 64, 96, finest=6))
    asked = ["device=cpu", "data.dataset=folder", f"data.root={path.parent}", "data.workers=0"]
    asked += ["data.sampling=segment", f"init={encoder[0]}", f"out={tmp_path / 'f.npz'}"]
    assert features.main(asked) == 0
    with np.load(tmp_path / "f.npz") as found:
        command = torch.from_numpy(found["features"][0, 0])
    model = load_encoder(encoder[0])
    assert torch.cosine_similarity(command, model.features(read_video(path)), dim=0) > 0.999
    with av.open(str(path)) as file:
        plain = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert torch.cosine_similarity(command, model.features(plain), dim=0) < 0.999


def of_store(store, encoder, out, *more):
    return [
        "device=cpu",
        "data.workers=0",
        f"store={store}",
        f"init={encoder[0]}",
        f"out={out}",
        *more,
    ]


def test_features_of_a_store_are_those_of_all_its_videos(labelled_store, encoder, tmp_path):
    assert features.main(of_store(labelled_store, encoder, tmp_path / "f.npz")) == 0
    files = ["data.frames=video", "data.root=/"]
    assert features.main(of_store(labelled_store, encoder, tmp_path / "v.npz", *files)) == 0
    for name in ("f.npz", "v.npz"):
        with np.load(tmp_path / name) as found:
            assert len(found["features"]) == 6


def test_a_split_of_a_store_is_refused(labelled_store, encoder, tmp_path):
    with pytest.raises(UsageError, match=r"split=val cannot be read from store=.*leave split out"):
        features.main(of_store(labelled_store, encoder, tmp_path / "f.npz", "split=val"))


def test_a_folder_of_videos_that_are_not_read_is_refused(labelled_store, encoder, tmp_path):
    with pytest.raises(UsageError, match=r"data\.root=/nowhere is not read.*data\.frames=video"):
        features.main(of_store(labelled_store, encoder, tmp_path / "f.npz", "data.root=/nowhere"))
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.parametrize("name", ["store/shards/00009.zarr", "store/f.npz", "link/f.npz"])
def test_features_are_not_written_into_the_store(labelled_store, encoder, tmp_path, name):
    (tmp_path / "link").symlink_to(labelled_store)
    before = sorted(labelled_store.rglob("*"))
    with pytest.raises(UsageError, match=r"^out=.* lies in the store .*: choose a folder outside"):
        features.main(of_store(labelled_store, encoder, tmp_path / name))
    assert sorted(labelled_store.rglob("*")) == before


def test_features_do_not_replace_the_folder_of_their_store(labelled_store, encoder, tmp_path):
    out = tmp_path / "f.zarr"
    (out / "features").mkdir(parents=True)
    labelled_store.rename(out / "store")
    with pytest.raises(UsageError, match="choose a place outside"):
        features.main(of_store(f"file://{out / 'store'}", encoder, out))
    assert (out / "store" / "store.json").exists()


def test_the_stride_of_pretraining_is_used(labelled_set, encoder, tmp_path):
    """A recipe that says none trains at its store's stride, which the checkpoint holds."""
    saved = torch.load(encoder[0])
    saved["config"] |= {"data": {"stride": None}}
    torch.save(saved | {"spec": {"stride": 2}}, tmp_path / "w.pt")
    asked = words(labelled_set, tmp_path / "w.pt", tmp_path / "pretrained.npz")
    assert features.main([word for word in asked if word != "data.stride=1"]) == 0
    asked = words(labelled_set, encoder[0], tmp_path / "two.npz")
    assert features.main([*asked, "data.stride=2"]) == 0
    with np.load(tmp_path / "pretrained.npz") as found, np.load(tmp_path / "two.npz") as want:
        assert (found["features"] == want["features"]).all()


def test_a_link_to_features_stays_a_link(labelled_set, encoder, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link.zarr"
    link.symlink_to(tmp_path / "disk" / "f.zarr")
    for clips in (1, 3):
        asked = words(labelled_set, encoder[0], link)
        assert features.main([*asked, f"view.clips={clips}"]) == 0
        assert zarr.open_group(tmp_path / "disk" / "f.zarr", mode="r")["features"].shape[1] == clips
    assert link.is_symlink() and [path.name for path in (tmp_path / "disk").iterdir()] == ["f.zarr"]


def test_zarr_holds_the_same(encoder, tmp_path):
    root = write_set(tmp_path / "set", train=1, val=2)
    (root / "val" / "right" / "0.mp4").write_bytes(b"no video")
    for name in ("f.npz", "f.zarr"):
        assert features.main(words(root, encoder[0], tmp_path / name)) == 0
    group = zarr.open_group(tmp_path / "f.zarr", mode="r")
    with np.load(tmp_path / "f.npz") as found:
        assert (group["features"][:] == found["features"]).all()
        assert (group["label"][:] == found["label"]).all()
        assert group.attrs["ids"] == found["ids"].tolist()
    assert group["features"].shape[0] == 3
    ((video, reason),) = group.attrs["not_read"]
    assert video == "val/right/0.mp4" and reason


def test_model_key_that_the_weights_contradict_is_refused(labelled_set, encoder, tmp_path):
    same = [*words(labelled_set, encoder[0], tmp_path / "f.npz"), "model.depth=1"]
    with pytest.raises(UsageError, match=r"model\.frames=8: .* has model\.frames=4; leave it out"):
        features.main([*same, "model.frames=8"])


@pytest.mark.parametrize("word", ["model.size=base", "model.frames=16", "model.image_size=224"])
def test_a_contradicting_model_key_is_refused_at_its_default_too(
    labelled_set, encoder, tmp_path, word
):
    recipe = tmp_path / "features.yaml"
    key, _, value = word.removeprefix("model.").partition("=")
    recipe.write_text(f"model: {{{key}: {value}}}\n")
    given = words(labelled_set, encoder[0], tmp_path / "f.npz")
    for more in ([word], ["--config", str(recipe)]):
        with pytest.raises(UsageError, match=f"^{word}: .* has model.*; leave it out"):
            features.main([*given, *more])


def test_a_recipe_that_names_the_weights_own_model_is_taken(labelled_set, encoder, tmp_path):
    recipe = tmp_path / "features.yaml"
    recipe.write_text("model: {size: tiny, depth: null, frames: 4, image_size: 32, patch: 16}\n")
    given = words(labelled_set, encoder[0], tmp_path / "f.npz")
    assert features.main([*given, "--config", str(recipe)]) == 0


def test_the_name_says_the_format(labelled_set, encoder, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.zarr or \.npz"):
        features.main(words(labelled_set, encoder[0], tmp_path / "f.csv"))


def test_the_recipe_goes_with_the_features(labelled_set, encoder, tmp_path):
    assert features.main(words(labelled_set, encoder[0], tmp_path / "f.npz")) == 0
    with np.load(tmp_path / "f.npz") as found:
        config = str(found["config"])
    assert f"init: {encoder[0]}" in config and "size: tiny" in config
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_what_holds_no_features_is_not_overwritten(labelled_set, encoder, tmp_path):
    out = tmp_path / "f.zarr"
    zarr.open_group(out, mode="w").create_array("position", data=np.zeros(3))
    with pytest.raises(UsageError, match=r"f\.zarr: exists and does not hold features"):
        features.main(words(labelled_set, encoder[0], out))
    assert (zarr.open_group(out, mode="r")["position"][:] == 0).all()
    (tmp_path / "file").write_text("")
    (tmp_path / "file.zarr").write_text("")
    with pytest.raises(UsageError, match=r"file\.zarr: exists and does not hold features"):
        features.main(words(labelled_set, encoder[0], tmp_path / "file.zarr"))
    with pytest.raises(UsageError, match="cannot be written"):
        features.main(words(labelled_set, encoder[0], tmp_path / "file" / "f.npz"))


def test_a_full_disk_is_reported_with_the_file(labelled_set, encoder, tmp_path, monkeypatch):
    def fail(*_args, **_arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match=r"No space left on device: .*f\.npz"):
        features.main(words(labelled_set, encoder[0], tmp_path / "f.npz"))
    assert list(tmp_path.iterdir()) == []
