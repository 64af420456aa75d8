import numpy as np
import pytest

from mme_core.canvas import MARGIN, grid_points, plan_canvas
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec

SPEC = TargetSpec()


@pytest.mark.parametrize(
    ("size", "resized", "patches"),
    [
        ((256, 340), (256, 340), (16, 20)),
        ((240, 320), (256, 342), (16, 20)),  # 341.33: the nearest even number
        ((1080, 1920), (256, 456), (16, 20)),
        ((1920, 1080), (456, 256), (20, 16)),
        ((321, 243), (338, 256), (20, 16)),
        ((32, 32), (256, 256), (16, 16)),
        ((144, 176), (256, 312), (16, 19)),
    ],
)
def test_frames_are_resized_and_cropped_to_patches(size, resized, patches):
    canvas = plan_canvas(*size, SPEC)
    assert canvas.resized == resized and (canvas.hp, canvas.wp) == patches
    image = np.zeros((*size, 3), np.uint8)
    assert canvas.resize(image).shape[:2] == resized
    assert canvas.crop(canvas.resize(image)).shape[:2] == (16 * patches[0], 16 * patches[1])


@pytest.mark.parametrize("size", [(256, 340), (720, 1280), (1280, 720), (10, 1000), (333, 97)])
def test_the_canvas_is_centred_in_the_region(size):
    canvas = plan_canvas(*size, SPEC)
    top, left, bottom, right = canvas.region
    x, y = canvas.offset
    after = (bottom - top - y - 16 * canvas.hp, right - left - x - 16 * canvas.wp)
    assert abs(after[0] - y) <= 1 and abs(after[1] - x) <= 1
    assert max(x, y, *after) <= MARGIN and min(x, y, *after) >= 0
    if canvas.resized[1] >= 320 + 2 * MARGIN:
        assert (x, after[1]) == (MARGIN, MARGIN)
    region = canvas.crop_region(np.zeros(canvas.resized))
    assert region.shape == (bottom - top, right - left)


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (7, 4001), (1, 3000)])
def test_an_extreme_aspect_ratio_keeps_its_middle(size):
    canvas = plan_canvas(*size, SPEC)
    assert canvas.resized[0] * canvas.resized[1] < 8 * 256 * 320
    assert max(canvas.hp, canvas.wp) == 20
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    along = x if size[1] > size[0] else y
    middle = canvas.crop(canvas.resize(along - along.mean()))  # odd about the middle of the frame
    assert abs(middle.mean()) < 0.01
    scale = 256 / min(size)
    assert np.ptp(middle) == pytest.approx(319 / scale, rel=0.1)


@pytest.mark.parametrize("size", [(48, 400), (400, 48), (100, 850)])
def test_frames_up_to_eight_times_as_long_are_resized_whole(size):
    canvas = plan_canvas(*size, SPEC)
    assert canvas.source == (0, 0, *size)
    assert max(canvas.resized) == 2 * round(max(size) * 256 / min(size) / 2)


def test_the_resize_has_half_pixel_centres():
    canvas = plan_canvas(512, 512, SPEC)
    ramp = np.tile(np.arange(512, dtype=np.float32), (512, 1))
    assert np.allclose(canvas.resize(ramp)[0], 2 * np.arange(256) + 0.5)


def test_shrinking_averages_over_area():
    fine = np.random.default_rng(0).integers(0, 2, (1024, 1024)).astype(np.uint8) * 200
    shrunk = plan_canvas(1024, 1024, SPEC).resize(fine)
    assert shrunk.std() == pytest.approx(100 / 4, rel=0.05)  # a mean of 16 pixels


def test_the_grid_is_symmetric():
    points = grid_points(3, 5, SPEC)
    assert points[0, 0].tolist() == [[3.5, 3.5], [11.5, 3.5], [3.5, 11.5], [11.5, 11.5]]
    assert points[2, 4, 3].tolist() == [75.5, 43.5]
    mirrored = points[:, ::-1, [1, 0, 3, 2]] * [-1, 1] + [79, 0]
    assert (mirrored == points).all()
    assert grid_points(1, 1, TargetSpec(points=1)).ravel().tolist() == [7.5, 7.5]


def test_the_region_adds_up_to_64_pixels():
    canvas = plan_canvas(256, 1000, SPEC)
    assert canvas.offset == (64, 0) and canvas.crop_region(np.zeros((256, 1000))).shape[1] == 448


def test_the_defaults_are_those_of_the_contract():
    fields = "4 8 16 4 6 256 320 dis-tuned False none 9 8 jpeg 90 True"
    assert " ".join(map(str, SPEC.to_dict().values())) == fields
    with pytest.raises(UsageError, match="must be 1 or 4"):
        TargetSpec(points=9, patch=15)
