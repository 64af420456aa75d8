"""Extraction agrees with its definitions, which `equations` writes out by other code."""

import equations
import motion
import numpy as np
import pytest
from numpy.testing import assert_allclose as compare

from mme_core.extract import extract_video, stream_tubelets
from mme_core.spec import TargetSpec

SIZE, FRAMES = (64, 112), 19
CORNER = np.array([16, 0])  # of the canvas, which has 4 × 5 patches; the region is the whole frame


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    """A video that turns, its luma and its flow."""
    path = tmp_path_factory.mktemp("equations") / "turning.mp4"
    motion.write_video(path, motion.render(motion.rotation(1.2, (56, 32)), FRAMES, *SIZE))
    luma = equations.read_luma(path)
    return path, equations.flow_between(luma), list(map(equations.gradient_votes, luma))


@pytest.mark.parametrize(("stride", "hop", "length"), [(4, 8, 6), (3, 2, 5), (4, 4, 2), (1, 1, 6)])
def test_targets_agree_with_the_equations(turning, stride, hop, length):
    path, flows, votes = turning
    spec = TargetSpec(
        short_side=64, long_side=80, stride=stride, hop=hop, length=length, flow="dis-ultrafast"
    )
    found, coded = extract_video(path, spec), list(stream_tubelets(path, spec))
    starts = range(0, FRAMES - stride, hop)
    assert len(found.valid) == len(coded) == len(starts)
    rng = np.random.default_rng(0)
    for tubelet in (0, len(starts) // 2, len(starts) - 1):
        for _ in range(12):
            row, column, point = (int(rng.integers(most)) for most in (4, 5, 4))
            start = np.array([16 * column + 8 * (point % 2), 16 * row + 8 * (point // 2)]) + 3.5
            moves, places, hog = equations.follow(
                flows, votes, starts[tubelet], length, start + CORNER
            )
            here, taken = (tubelet, row, column, point), len(moves)
            compare(found.displacement[here][:taken], moves, atol=1e-3)
            compare(found.points[here][1 : taken + 1], places - CORNER, atol=5e-3)
            compare(found.hog[here][:taken], hog, atol=0.03 + 0.02 * hog.max())
            inside = (places >= 0).all() and (places <= (SIZE[1] - 1, SIZE[0] - 1)).all()
            assert found.valid[here] == (inside and taken == length)
            assert (coded[tubelet].valid[row, column] >> point & 1) == found.valid[here]


def test_stored_numbers_agree_with_the_equations(turning):
    path = turning[0]
    spec = TargetSpec(short_side=64, long_side=80, flow="dis-ultrafast")
    found = extract_video(path, spec)
    for tubelet, coded in enumerate(stream_tubelets(path, spec)):
        moves = found.displacement[tubelet].astype(float)  # [4, 5, K, L, 2]
        hog = found.hog[tubelet].astype(float)  # [4, 5, K, L, 9]
        mean, deviation = moves.mean((2, 3)), moves.std((2, 3))
        moments = [mean, deviation, hog.mean((2, 3, 4))[..., None], hog.std((2, 3, 4))[..., None]]
        compare(coded.moments, np.concatenate(moments, -1), rtol=1e-4, atol=1e-5)
        z_score = (moves - mean[:, :, None, None]) / (deviation[:, :, None, None] + 1e-6)
        compare(coded.position, z_score * 127 / np.sqrt(23), atol=0.51)
        z_score = (hog - moments[2][..., None, None]) / (moments[3][..., None, None] + 1e-6)
        compare(coded.shape, z_score * 127 / np.sqrt(215), atol=0.51)
        whole = moves.mean((2, 3, 4), keepdims=True), moves.std((2, 3, 4), keepdims=True)
        normalised = (moves - whole[0]) / (whole[1] + 1e-6)
        compare(found.position[tubelet], normalised, rtol=1e-3, atol=1e-3)
