import numpy as np
import pytest
from motion import render, translation

from mme_core.errors import UsageError, VideoError
from mme_core.extract import extract_video
from mme_core.extract.flow import ALGORITHMS, check_side, flow_function
from mme_core.spec import TargetSpec

FIRST, SECOND = render(translation(2.3, -1.4), 2, 96, 128)


def zero(first, second):
    return np.zeros((*first.shape, 2), np.float32)


def lost(first, second):
    return np.full((*first.shape, 2), np.nan, np.float32)


def lost_in_all(frames_TCHW):
    count, _, height, width = frames_TCHW.shape
    return np.full((count - 1, 2, height, width), np.inf, np.float32)


def wrong(first, second):
    return np.zeros(first.shape)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "tvl1"])
def test_flow_points_from_first_to_second_image(name):
    flow = flow_function(name)(FIRST, SECOND)
    assert flow.dtype == np.float32 and flow.shape == (96, 128, 2)
    inner = flow[16:-16, 16:-16].reshape(-1, 2)
    assert np.allclose(np.median(inner, 0), [2.3, -1.4], atol=0.1)


def test_the_default_beats_dis_medium_on_noisy_images():
    rng = np.random.default_rng(0)
    first, second = (
        np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        for image in render(translation(2.3, -1.4), 2, 192, 256)
    )
    errors = {
        name: np.linalg.norm(flow_function(name)(first, second) - (2.3, -1.4), axis=-1)[
            16:-16, 16:-16
        ]
        for name in ("dis-medium", TargetSpec().flow)
    }
    assert np.mean(errors[TargetSpec().flow]) < 0.9 * np.mean(errors["dis-medium"])


def test_tvl1_runs():
    flow = flow_function("tvl1")(FIRST[:48, :48].copy(), SECOND[:48, :48].copy())
    assert flow.shape == (48, 48, 2)


def test_a_flow_function_of_the_user():
    assert not flow_function(f"{__name__}:zero")(FIRST, SECOND).any()
    with pytest.raises(
        UsageError, match=r"returned float64 \(96, 128\), not float32 \(96, 128, 2\)"
    ):
        flow_function(f"{__name__}:wrong")(FIRST, SECOND)


@pytest.mark.parametrize("function", ["lost", "lost_in_all"])
def test_flow_that_is_not_finite_rejects_the_video(pan, function):
    name = f"{__name__}:{function}"
    with pytest.raises(VideoError, match=f"spec.flow={name} returned numbers that are not finite"):
        extract_video(pan, TargetSpec(short_side=64, long_side=80, flow=name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raft", "dis-tuned, .*farneback.*package.module:function"),
        ("no.such.module:flow", "cannot be imported: No module named 'no'"),
        ("mme_core.extract.flow:nothing", "cannot be imported"),
        (":flow", r"spec\.flow=:flow must be package\.module:function"),
        (".flow:flow", r"spec\.flow=\.flow:flow must be package\.module:function"),
        ("mme_core.extract.flow:ALGORITHMS", "not a function"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UsageError, match=message):
        flow_function(name)


SMALLEST = {
    "dis-ultrafast": 32,
    "dis-fast": 32,
    "dis-medium": 16,
    "dis-tuned": 12,
    "dis-tuned-fast": 16,
}


@pytest.mark.parametrize(("flow", "side"), SMALLEST.items())
def test_a_frame_that_is_too_small_for_the_flow_is_refused(flow, side):
    check_side(flow, side)
    small = TargetSpec(patch=8, short_side=side - 1, long_side=8, flow=flow)  # may be a store's
    message = f"spec.short_side={side - 1} must be at least {side} for spec.flow={flow}: use"
    with pytest.raises(UsageError, match=message):
        extract_video("any.mp4", small)
    check_side("farneback", side - 1)


@pytest.mark.parametrize("flow", [name for name in ALGORITHMS if name.startswith("dis-")])
@pytest.mark.parametrize("ratio", [1, 3, 20])
def test_dis_computes_the_flow_of_the_smallest_frame(flow, ratio):
    shape = (SMALLEST[flow], ratio * SMALLEST[flow])
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    for first, second in (images, images.transpose(0, 2, 1).copy()):
        assert np.isfinite(ALGORITHMS[flow]()(first, second)).all()
