import csv
import json
import subprocess
import sys
from pathlib import Path

import evaluate_phases
import numpy as np
import pytest
import torch
import yaml
from evaluate_phases import FINETUNE
from labelled import source_of, write_set
from stores import write_store

from mme_core.clips.views import to_model_input
from mme_core.errors import MMEError, UsageError
from mme_core.io.video import Video
from mme_core.model import build_classifier
from mme_core.store import TargetStore
from mme_core.weights.load import read_weights
from mme_core.weights.run_folder import read_metrics
from mme_core.weights.save import save_weights
from train import evaluate, finetune
from train.data.labelled import TestViews, ViewPlan, collate_train
from train.engine import checkpoint
from train.engine.distributed import connect
from train.engine.folder import write_config
from train.recipes.classification import FinetuneConfig, LabelledDataConfig
from train.scoring.evaluation import Passes, score_videos, settled

FRAMES, SIDE = 4, 32
PHASES = Path(evaluate_phases.__file__)


# views


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run's folder with a classifier of random weights that prefers some clips to others."""
    torch.manual_seed(0)
    model = build_classifier("tiny", 2, depth=1, frames=FRAMES, image_size=SIDE).eval()
    torch.nn.init.normal_(model.head.weight)
    folder = tmp_path_factory.mktemp("classifier")
    recipe = {"data": {"sampling": "dense", "stride": 2}}
    save_weights(
        folder / "model.safetensors",
        model.state_dict(),
        frames=FRAMES,
        image_size=SIDE,
        class_names=["left", "right"],
        recipe=recipe,
    )
    return folder, model


def words(root, folder, out, *more):
    fixed = ["device=cpu", "data.dataset=folder", "data.workers=0", "eval.clips=2", "eval.crops=3"]
    return [*fixed, f"data.root={root}", f"init={folder}", f"out={out}", *more]


def evaluation(out):
    return json.loads((Path(out) / "evaluation.json").read_text())


@torch.inference_mode()
def test_multi_view_scores_equal_a_direct_computation(labelled_set, classifier, tmp_path, capsys):
    folder, model = classifier
    assert evaluate.main(words(labelled_set, folder, tmp_path, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == evaluation(tmp_path)
    source = source_of(labelled_set)
    right = 0
    for video, item in enumerate(source.items):
        with Video(item.path) as opened:
            frames = np.stack([frame.rgb() for frame in opened])
        probabilities = []
        # 12 frames at stride 2 are 6; clips of 4 start at 0 and 2; crops of 32×48 at 0, 8, 16
        for start in (0, 2):
            clip = frames[0:12:2][start : start + FRAMES]
            for left in (0, 8, 16):
                view = torch.from_numpy(clip[:, :, left : left + SIDE].copy())[None]
                probabilities.append(model(to_model_input(view)).softmax(1)[0])
        mean = torch.stack(probabilities).mean(0)
        right += int(mean.argmax()) == source.labels[video]
        row = list(csv.DictReader((tmp_path / "predictions.csv").open()))[video]
        assert row["id"] == item.id
        assert float(row["score_1"]) == pytest.approx(mean.max().item(), abs=1e-5)
    assert evaluation(tmp_path)["top1"] == pytest.approx(right / len(source.items))


@pytest.fixture(scope="module")
def two_processes(classifier, tmp_path_factory):
    """(words, folder): what PHASES left, of five training and five held-out videos and two more
    that cannot be read."""
    tmp_path = tmp_path_factory.mktemp("two")
    root = write_set(tmp_path / "set", train=3, val=3)
    for split in ("train", "val"):
        (root / split / "left" / "1.mp4").write_bytes(b"no video")
    more = [f"data.root={root}", f"init={classifier[0]}", "data.dataset=folder", "data.workers=0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(PHASES), str(tmp_path / "two"), *more],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [*more, "device=cpu"], tmp_path / "two"


def test_one_and_two_processes_agree_to_the_last_digit(two_processes, tmp_path):
    words, folder = two_processes
    assert evaluate.main([*words, f"out={tmp_path}"]) == 0
    two = folder / "evaluate"
    assert evaluation(tmp_path) == evaluation(two)
    assert evaluation(tmp_path)["videos"] == 5
    assert (tmp_path / "predictions.csv").read_text() == (two / "predictions.csv").read_text()


def test_two_processes_extract_every_video_once(two_processes):
    report = json.loads((two_processes[1] / "probe" / "probe.json").read_text())
    assert (report["training_videos"], report["test_videos"]) == (5, 5)


def test_two_processes_learn_and_count_what_one_does(two_processes, tmp_path):
    words, folder = two_processes
    assert finetune.main([*words, *FINETUNE, "data.batch_size=4", f"out={tmp_path}"]) == 0
    rows = [
        [row for row in read_metrics(run) if "loss" in row]
        for run in (tmp_path, folder / "finetune")
    ]
    one, two = ([row["loss"] for row in run] for run in rows)
    assert len(one) == 4
    assert one == pytest.approx(two, abs=1e-4)
    one, two = ([row["bad"] for row in run] for run in rows)
    assert one == two and one[-1] == 1


def test_unreadable_videos_are_counted_and_not_replaced(classifier, tmp_path, capsys):
    root = write_set(tmp_path / "set", train=1, val=2)
    (root / "val" / "left" / "0.mp4").write_bytes(b"no video")
    (root / "val" / "right" / "1.mp4").write_bytes(b"")
    assert evaluate.main(words(root, classifier[0], tmp_path / "out")) == 0
    result = evaluation(tmp_path / "out")
    assert (result["videos"], result["asked"], result["coverage"]) == (2, 4, 0.5)
    assert [row["id"] for row in result["not_read"]] == ["val/left/0.mp4", "val/right/1.mp4"]
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 3
    assert "2 of 4 not read (coverage 50.00%)" in capsys.readouterr().out


def test_nothing_readable_is_an_error(classifier, tmp_path):
    root = write_set(tmp_path / "set", train=1, val=1)
    for path in (root / "val").rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(MMEError, match="none of 2 videos can be read"):
        evaluate.main(words(root, classifier[0], tmp_path / "out"))


def test_still_frames_hide_the_motion(labelled_set, classifier):
    plan = ViewPlan("dense", 2, FRAMES, SIDE, clips=2, crops=3, still=True)
    views = TestViews(source_of(labelled_set), plan)[0]["views"]
    assert views.shape == (6, FRAMES, SIDE, SIDE, 3)
    assert (views == views[:, :1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["init=/nowhere"], "no such file of weights"),
        (["data.val_split=test"], "test"),
        (["data.stride=0"], r"data\.stride=0 must be at least 1"),
        (["data.sampling=sparse"], "data.sampling=sparse is not one of"),
        (["eval.crops=0"], "eval.crops=0 must be at least 1"),
    ],
)
def test_wrong_input_is_explained(labelled_set, classifier, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        evaluate.main(words(labelled_set, classifier[0], tmp_path, *change))


def test_the_folder_of_a_fine_tuning_run_is_refused(labelled_set, classifier, tmp_path):
    write_config(FinetuneConfig(out=str(tmp_path), init="none"))
    before = (tmp_path / "config.yaml").read_text()
    message = rf"out={tmp_path} holds the output of `mme finetune`.*out={tmp_path}/evaluate$"
    with pytest.raises(UsageError, match=message):
        evaluate.main(words(labelled_set, classifier[0], tmp_path))
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    labelled_set, classifier, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate, "evaluate", lambda *args, **how: pytest.fail("too late"))
    with pytest.raises(UsageError, match="cannot be written"):
        evaluate.main(words(labelled_set, classifier[0], tmp_path / "file"))


def test_half_a_classifier_is_refused(labelled_set, classifier, tmp_path):
    state = dict(classifier[1].state_dict())
    del state["fc_norm.weight"]
    save_weights(tmp_path / "h.safetensors", state, frames=FRAMES, image_size=SIDE)
    with pytest.raises(UsageError, match=r"not a whole classifier.*lacks fc_norm\.weight"):
        evaluate.main(words(labelled_set, tmp_path / "h.safetensors", tmp_path / "out"))


def test_a_pretrained_encoder_cannot_be_evaluated(labelled_set, tmp_path):
    state = build_classifier("tiny", 2, depth=1, frames=FRAMES, image_size=SIDE).state_dict()
    encoder = {name: tensor for name, tensor in state.items() if name.startswith("encoder.")}
    save_weights(tmp_path / "e.safetensors", encoder, frames=FRAMES, image_size=SIDE)
    with pytest.raises(UsageError, match=r"no classification head.*mme finetune"):
        evaluate.main(words(labelled_set, tmp_path / "e.safetensors", tmp_path / "out"))


def test_classes_of_the_videos_must_be_known(classifier, tmp_path):
    root = write_set(tmp_path / "set", train=1, val=1)
    (root / "val" / "left").rename(root / "val" / "jump")
    with pytest.raises(UsageError, match="does not know: jump; it knows 2 classes: left, right"):
        evaluate.main(words(root, classifier[0], tmp_path / "out"))


# sources


def test_quarantined_videos_of_a_store_are_asked_and_not_read(labelled_store, classifier, tmp_path):
    words = ["device=cpu", "data.workers=0", f"val_store={labelled_store}", f"init={classifier[0]}"]
    assert evaluate.main([*words, f"out={tmp_path / 'out'}"]) == 0
    result = evaluation(tmp_path / "out")
    assert (result["videos"], result["asked"]) == (6, 7)
    assert result["not_read"] == [{"id": "left/9.mp4", "reason": "too short"}]


def test_segments_need_no_stride():
    recipe = {"data": {"sampling": "segment", "stride": 4}}
    data = settled(LabelledDataConfig(), recipe)
    assert (data.sampling, data.stride) == ("segment", None)
    with pytest.raises(UsageError, match=r"data\.stride=2 has no effect"):
        settled(LabelledDataConfig(stride=2), recipe)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("dense", 4)),
        ({"stride": 2}, ("dense", 2)),
        ({"sampling": "segment"}, ("segment", None)),
    ],
)
def test_keys_of_the_command_win_over_the_recipe_of_the_weights(keys, expected):
    recipe = {"data": {"sampling": "dense", "stride": 4}}
    data = settled(LabelledDataConfig(**keys), recipe)
    assert (data.sampling, data.stride) == expected


def test_the_stride_of_training_goes_with_the_weights(labelled_store, labelled_set, tmp_path):
    """Trained from a store, evaluated from files: the clip must be the same."""
    run = [*FINETUNE, "init=none", "device=cpu", "data.workers=0", "data.batch_size=4"]
    run = [word for word in run if not word.startswith("data.stride")]
    spec = TargetStore(labelled_store).spec
    train = write_store(tmp_path / "train", sorted((labelled_set / "train").rglob("*.mp4")), spec)
    stores = [f"store={train}", f"val_store={labelled_store}", f"out={tmp_path / 'run'}"]
    assert finetune.main([*run, *stores, "optim.steps=1"]) == 0
    assert read_weights(tmp_path / "run").recipe["data"]["stride"] == 2
    assert checkpoint.load_last(tmp_path / "run", pytest.fail)["config"]["data"]["stride"] == 2
    files = ["data.dataset=folder", f"data.root={labelled_set}", "data.workers=0", "device=cpu"]
    assert evaluate.main([*files, f"init={tmp_path / 'run'}", f"out={tmp_path / 'out'}"]) == 0
    made = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (made["data"]["sampling"], made["data"]["stride"]) == ("dense", 2)


def test_a_batch_keeps_its_size_when_videos_fail():
    def item(value):
        return {
            "frames": torch.full((2, 1, 1, 1, 3), value, dtype=torch.uint8),
            "label": torch.tensor([value, value]),
            "video": torch.tensor([value, value]),
            "failed": {value + 5: "cut off"},
        }

    broken = {"failed": {3: "broken"}}
    batch = collate_train([item(1), broken, item(2)])
    assert batch["label"].tolist() == batch["video"].tolist() == [1, 1, 2, 2, 1, 1]
    assert batch["failed"] == {3: "broken", 6: "cut off", 7: "cut off"}
    assert collate_train([broken]) == broken


def test_scores_do_not_depend_on_the_batch(labelled_set, classifier):
    plan = ViewPlan("dense", 2, FRAMES, SIDE, clips=1, crops=1)
    source, ranks = source_of(labelled_set), connect("cpu")
    model = classifier[1]
    one = score_videos(model, source, plan, ranks, Passes(1, 0, torch.float32))
    four = score_videos(model, source, plan, ranks, Passes(4, 0, torch.float32))
    assert one[0].tolist() == four[0].tolist() == list(range(6))
    np.testing.assert_allclose(one[1], four[1], atol=1e-6)


def test_the_training_videos_are_refused_as_test_videos(labelled_set, tmp_path):
    more = ["init=none", "device=cpu", "data.workers=0", "data.batch_size=4", "optim.steps=1"]
    more += ["data.dataset=folder", f"data.root={labelled_set}", f"out={tmp_path / 'run'}"]
    assert finetune.main([*FINETUNE, *more]) == 0
    trained_on = words(labelled_set, tmp_path / "run", tmp_path / "out", "data.val_split=train")
    with pytest.raises(UsageError, match="all 12 held-out videos are training videos"):
        evaluate.main(trained_on)
