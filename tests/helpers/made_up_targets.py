"""Small made-up targets for the tests of the store: no video, no flow."""

import json

import cv2
import numpy as np

from mme_core import cells, targets
from mme_core.extract.results import TubeletTargets
from mme_core.frame_codec import encode_frame
from mme_core.spec import TargetSpec
from mme_core.store.seal import blank, seal
from mme_core.store.target_store import open_or_create_store
from mme_core.store.writer import ShardWriter

SPEC = TargetSpec(short_side=64, long_side=80, camera="homography")


def raw(rng, n, hp, wp, spec=SPEC):
    """displacement, hog of n tubelets, float32."""
    lead = (n, hp, wp, spec.points, spec.length)
    displacement = rng.normal(rng.normal(), 0.1, (*lead, 2)).astype(np.float32)
    return displacement, rng.random((*lead, spec.hog_bins), dtype=np.float32)


def tubelets(seed, n, hp=4, wp=5, spec=SPEC):
    """n TubeletTargets of a made-up video."""
    rng = np.random.default_rng(seed)
    displacement, hog = raw(rng, n, hp, wp, spec)
    position, shape, moments = targets.encode(displacement, hog, spec)
    made = []
    for t in range(n):
        frames = ()
        if spec.frames != "none":
            small = rng.integers(0, 255, (2, hp, wp, 3), np.uint8)
            large = [cv2.resize(image, (16 * wp, 16 * hp)) for image in small]
            frames = tuple(encode_frame(image, spec) for image in large)
        camera = None
        if spec.camera == "homography":
            camera = np.eye(3, dtype=np.float32) + rng.normal(0, 1e-3, (spec.length, 3, 3))
        first = spec.hop * t
        grid = (hp, wp, spec.points, spec.length)
        sums = {
            name: rng.gamma(1, 1, (*grid, cells.bins(name, spec))).astype(np.float32)
            for name in spec.cells
        }
        made.append(
            TubeletTargets(
                position=position[t],
                shape=shape[t],
                moments=moments[t],
                valid=rng.integers(0, 1 << spec.points, (hp, wp), np.uint8),
                pts=np.array([first, first + spec.stride]),
                frames=frames,
                homography=None if camera is None else camera.astype(np.float32),
                first=first,
                cells=cells.encode_all(sums),
            )
        )
    return made


def row(name, n, hp=4, wp=5, spec=SPEC, **changes):
    """What `end_video` is told of a video with n tubelets."""
    frames = spec.hop * (n - 1) + spec.stride + 1
    about = {"id": name, "path": name, "label": 0, "fps": 25.0, "frames": frames, "warnings": []}
    return about | {"height": 16 * hp, "width": 16 * wp} | changes


def write_shard(url, number, videos, spec=SPEC):
    """`videos`: {id: number of tubelets}; a video of 0 tubelets is begun and abandoned after 3."""
    with ShardWriter(url, number, spec) as writer:
        for seed, (name, n) in enumerate(videos.items()):
            writer.begin_video()
            for tubelet in tubelets(seed, n or 3, spec=spec):
                writer.append(tubelet)
            if n:
                writer.end_video(row(name, n, spec=spec))
            else:
                writer.abandon_video()


def make_store(url, shards=({"a.mp4": 11, "b/ü.mp4": 3},), spec=SPEC):
    """A store with a shard for each dict of `shards`; returns its address."""
    open_or_create_store(url, spec, "folder", "train", ["x", "y"])
    for number, videos in enumerate(shards):
        write_shard(url, number, videos, spec)
    return url


def change_json(path, change):
    """Changes a JSON file of a store as a program would: with a new digest, where it has one."""
    values = json.loads(path.read_text())
    change(values)
    holder = values.get("attributes", values)
    if "digest" in holder:
        holder.update(blank())
        path.write_bytes(seal(values))
    else:
        path.write_text(json.dumps(values))
