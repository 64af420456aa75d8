"""Clips with mask=motion: most visible tubes are where most moves."""

import numpy as np
import pytest
import torch
from motion import render, translation, write_video
from stores import write_store

from mme_core.clips.dataset import ClipDataset
from mme_core.spec import TargetSpec
from mme_core.store.target_store import TargetStore


@pytest.mark.parametrize("zoom", [(), (4, 6)])
def test_the_motion_mask_follows_the_flip(tmp_path, zoom):
    """Only the left half moves: most visible tubes are there, in the mirror image on the right."""
    moving = render(translation(2, 0), 32, 96, 96)
    frames = [np.concatenate([f[:, :48], moving[0][:, 48:]], 1) for f in moving]
    path = tmp_path / "half" / "0.mp4"
    path.parent.mkdir()
    write_video(path, frames)
    spec = TargetSpec(stride=2, length=4, short_side=96, long_side=96)
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    data = ClipDataset(store, frames=8, image_size=96, mask="motion", zoom=zoom, crop="center")
    left = {False: [], True: []}
    for epoch in range(40):
        sample = data[epoch, 0]
        visible = ~sample["mask"].reshape(4, 6, 6)
        left[bool(sample["flip"])].append(visible[..., :3].sum() / visible.sum())
    assert np.mean(left[False]) > 0.6 and np.mean(left[True]) < 0.4


@pytest.mark.parametrize("camera", ["none", "homography"])
def test_the_motion_mask_looks_at_the_residual_where_the_cameras_motion_is_known(tmp_path, camera):
    """All drifts but the left column, which moves most against the background: 6 of 36 patches."""
    drifting = render(translation(2, 0), 24, 96, 96)
    frames = [np.concatenate([drifting[0][:, :16], f[:, 16:]], 1) for f in drifting]
    path = tmp_path / "column" / "0.mp4"
    path.parent.mkdir()
    write_video(path, frames)
    spec = TargetSpec(stride=2, length=4, short_side=96, long_side=96, camera=camera)
    store = TargetStore(write_store(tmp_path / "store", [path], spec))
    data = ClipDataset(store, frames=8, image_size=96, mask="motion", flip=False)
    visible = torch.stack([~data[epoch, 0]["mask"].reshape(4, 6, 6) for epoch in range(30)])
    share = visible[..., 0].sum() / visible.sum()
    assert share > 0.25 if camera == "homography" else share < 0.15
