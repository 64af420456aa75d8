"""RAFT from torchvision with weights from a file (random ones: none are downloaded)."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mme_core.errors import UsageError
from mme_core.extract.flow import FlowOfFrames, check_flow, flow_function

torch = pytest.importorskip("torch")
optical_flow = pytest.importorskip("torchvision.models.optical_flow")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "small.pth"
    torch.save(optical_flow.raft_small(weights=None).state_dict(), path)
    return str(path)


def test_raft_is_torchvisions_with_these_weights(weights):
    flow = flow_function("raft-small", weights)
    assert isinstance(flow, FlowOfFrames)
    frames = np.random.default_rng(0).integers(0, 255, (3, 3, 130, 90), dtype=np.uint8)
    found = flow(frames)
    assert [one.shape for one in found] == [(130, 90, 2)] * 2
    model = optical_flow.raft_small(weights=None).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    padded = np.pad(frames, [(0, 0), (0, 0), (0, 6), (0, 38)], mode="edge")
    images = torch.from_numpy(padded).float() / 127.5 - 1
    with torch.inference_mode():
        expected = model(images[1:2], images[2:])[-1][0, :, :130, :90].permute(1, 2, 0)
    np.testing.assert_allclose(found[1], expected.numpy(), atol=1e-3)


def test_one_model_serves_all_videos(weights, tmp_path):
    copy = Path(shutil.copy(weights, tmp_path))
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)
    first = flow_function("raft-small", str(copy))(frames)
    copy.write_bytes(b"")
    np.testing.assert_array_equal(flow_function("raft-small", str(copy))(frames), first)


def test_weights_of_another_model_are_refused(weights, tmp_path):
    with pytest.raises(UsageError, match=r"flow_weights=.*does not hold .* raft-large"):
        flow_function("raft-large", weights)
    (tmp_path / "text.pth").write_text("no weights")
    wrong = {"text.pth": " does not hold the weights", "missing.pth": ": no such file"}
    for name, said in wrong.items():
        with pytest.raises(UsageError, match=name + said):
            flow_function("raft-small", str(tmp_path / name))


def test_missing_torchvision_is_named(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UsageError, match=r"spec\.flow=raft-small needs torch and torchvision"):
        flow_function("raft-small", weights)


def test_weights_and_name_must_belong_together():
    with pytest.raises(UsageError, match=r"needs its weights: set spec\.flow_weights=FILE"):
        check_flow("raft-large", "")
    with pytest.raises(UsageError, match="belongs to raft-small and raft-large, not to dis-fast"):
        check_flow("dis-fast", "raft.pth")
