from dataclasses import replace

import pytest
import torch
from content_batches import SPEC, B, K, L, a_batch, camera_batch, h, n, w

from mme_core import cells, targets
from mme_core.clips.contents import CONTENTS, build_targets, content_sizes, content_weights
from mme_core.clips.settings import TargetSettings
from mme_core.clips.trajectories import stored_to_raw
from mme_core.errors import UsageError
from mme_core.spec import TargetSpec


def test_a_group_of_equal_numbers_is_exactly_zero():
    values = torch.full((3, 4, 6, 2), 5.1)
    assert targets.normalise(values, (-3, -2, -1)).abs().max() == 0


def test_validity_follows_points():
    batch, _ = a_batch()
    raw = stored_to_raw(batch, SPEC)
    built = build_targets(batch, SPEC, TargetSettings(), list(CONTENTS))
    for name, last in (("position", 2), ("shape", 9)):
        valid = built[name][1].reshape(B, n, h, w, K, L, last)
        assert torch.equal(valid, raw.valid[..., None, None].expand_as(valid))
    for name in ("pixel", "hog", "hog_sampled"):
        assert built[name][1].shape == (B, n * h * w, 1) and built[name][1].all()
    for name in ("hof", "mbh", "mbh_every", "hog_every"):
        assert torch.equal(built[name][1][..., 0], raw.valid.any(-1).flatten(1))


@pytest.mark.parametrize(
    ("content", "name", "steps"),
    [
        ("hof", "hof", [0]),
        ("mbh", "mbh", [0]),
        ("mbh_sampled", "mbh", [0, 4]),
        ("mbh_every", "mbh", range(6)),
        ("hog_every", "hog", range(6)),
    ],
)
def test_contents_of_cells_are_the_stored_ones_mirrored_with_the_clip(content, name, steps):
    batch, _ = a_batch()
    codes, moments = (batch[array] for array in cells.array_names((name,)))
    stored = cells.decode(codes, moments)[..., list(steps), :]
    mirrored = stored[1].flip(2)[..., [1, 0, 3, 2], :, :][..., cells.mirrored(name, SPEC)]
    expected = torch.stack([stored[0], mirrored]).flatten(4).flatten(1, 3)
    target = build_targets(batch, SPEC, TargetSettings(norm="none"), [content])[content][0]
    torch.testing.assert_close(target, expected)
    target = build_targets(batch, SPEC, TargetSettings(), [content])[content][0]
    assert abs(target.mean(-1)).max() < 1e-5 and abs(target.std(-1, correction=0) - 1).max() < 1e-3


def test_sizes_are_what_the_heads_predict():
    sizes = content_sizes(list(CONTENTS), SPEC, TargetSettings())
    assert sizes == {
        "position": 48,
        "shape": 216,
        "pixel": 1536,
        "hog": 36,
        "flow": 8,
        "hof": 36,
        "mbh": 72,
        "position_sampled": 8,
        "shape_sampled": 72,
        "hog_sampled": 72,
        "hog_every": 216,
        "mbh_sampled": 144,
        "mbh_every": 432,
    }
    some = ["position", "shape", "pixel", "hog", "flow"]
    merged = content_sizes(some, SPEC, TargetSettings(merge="max", length=3, camera=True))
    assert merged == {"position": 6, "shape": 27, "pixel": 1536, "hog": 36, "flow": 2}


def test_contents_and_weights_of_a_recipe():
    assert content_weights(["trajectory"], {}) == {"position": 1, "shape": 1}
    weights = content_weights(["trajectory", "pixel"], {"trajectory": 2, "shape": 0.5, "pixel": 3})
    assert weights == {"position": 2, "shape": 0.5, "pixel": 3}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: content_weights(["speed"], {}), "'speed' is not a content"),
        (lambda: content_weights(["position", "trajectory"], {}), "position twice"),
        (lambda: content_weights(["position"], {"hog": 1}), "weights=.* names hog"),
        (lambda: content_weights([], {}), "must name at least one"),
        (lambda: TargetSettings(norm="unit"), "norm=unit"),
        (lambda: TargetSettings(merge="sum"), "merge=sum"),
        (lambda: TargetSettings(floor=-1), "floor="),
        (lambda: TargetSettings(norm="step", merge="mean"), "norm=step"),
        (lambda: content_sizes([], SPEC, TargetSettings(length=7)), "length=7"),
        (lambda: content_sizes([], TargetSpec(), TargetSettings(camera=True)), "camera="),
        (lambda: content_sizes(["hof"], TargetSpec(), TargetSettings()), r"spec\.cells=hof"),
        (
            lambda: content_sizes(["position_sampled"], SPEC, TargetSettings(length=3)),
            "length=4, and these have 3",
        ),
        (
            lambda: content_sizes(
                ["mbh_sampled"], replace(SPEC, stride=6, hop=12), TargetSettings()
            ),
            r"spec\.length=6 must be above",
        ),
        (
            lambda: content_sizes(["hog"], TargetSpec(hog_cell=12), TargetSettings()),
            r"contents=hog needs cells that tile a patch: the store has spec\.hog_cell=12 and "
            r"spec\.patch=16; make one with spec\.hog_cell=8",
        ),
        (
            lambda: content_sizes(["hog_sampled"], TargetSpec(hog_cell=32), TargetSettings()),
            "contents=hog_sampled needs cells that tile a patch",
        ),
    ],
)
def test_bad_settings_name_the_field(call, word):
    with pytest.raises(UsageError, match=word):
        call()


def test_targets_compile_to_one_graph():
    batch, _ = a_batch()
    batch |= {name: camera_batch((False, True))[name] for name in ("homography", "origin")}
    settings = TargetSettings(camera=True, floor=0.1)

    def build(batch):
        return build_targets(batch, SPEC, settings, tuple(CONTENTS))

    compiled = torch.compile(build, fullgraph=True, backend="eager")(batch)
    for name, (target, valid) in build(batch).items():
        torch.testing.assert_close(compiled[name][0], target)
        assert torch.equal(compiled[name][1], valid)
