import re

import pytest
import yaml
from made_up_runs import CLASSES, finetuning, pretraining, probing

from mme_core.errors import UsageError
from mme_core.report.run_files import is_run, names_of, read_run
from mme_core.report.run_page import run_page


def page_of(*paths):
    return run_page([read_run(path, name) for path, name in zip(paths, names_of(list(paths)))])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return pretraining(tmp_path_factory.mktemp("runs") / "mine")


def test_curves_stand_beside_the_best_constant(pretrained):
    page = page_of(pretrained)
    assert "<b>Loss of position</b>" in page and "best constant 1.00" in page
    assert "0.700 of 1.00 (70.0%)" in page and "held out 0.700" in page
    assert page.count("curve dashed") == 2  # position and shape


def test_every_number_of_a_step_is_plotted(pretrained):
    page = page_of(pretrained)
    for title in ("Clips a second", "Time the device was idle, %", "loader_queue"):
        assert f"<b>{title}</b>" in page
    assert "this run 10.0" in page  # 0.1 of the time
    assert "<b>eta</b>" not in page


def test_a_number_that_was_not_finite_is_left_out_of_its_curve(pretrained):
    plot = page_of(pretrained).split("<b>Norm of the gradient</b>")[1].split("<b>")[0]
    assert "this run 1.00" in plot and "nan" not in plot


def test_end_point_errors_share_a_plot(pretrained):
    page = page_of(pretrained)
    plot = page.split("<b>End-point error, held out, px</b>")[1].split("<b>")[0]
    for label in ("the model 2.00", "no motion 3.00", "nearest visible patches 1.50"):
        assert label in plot
    assert "<b>epe_zero</b>" not in page


def test_a_last_row_that_a_kill_cut_off_is_left_out(pretrained):
    run = read_run(pretrained, "mine")
    assert run.series("loss")[0] == list(range(10, 401, 10))
    assert run.series("val_loss")[0] == [100, 200, 300, 400]


def test_pictures_are_spread_over_the_steps(pretrained):
    page = page_of(pretrained)
    assert re.findall(r"<figcaption>step (\d+)<", page) == ["100", "200", "300", "400", "400"]


def test_recipe_says_what_differs_from_the_defaults(pretrained):
    page = page_of(pretrained)
    assert "<td>optim.lr</td><td>0.001</td><td>0.00015</td>" in page


def test_runs_are_compared_side_by_side(pretrained, tmp_path):
    other = pretraining(tmp_path / "other", lr=0.5, init=str(pretrained))
    page = page_of(pretrained, other)
    assert "<th>mine</th><th>other</th>" in page
    assert "<td>optim.lr</td><td>0.001</td><td>0.5</td>" in page
    assert "mine held out 0.700" in page and "other held out 0.700" in page
    started = page.split("other: what differs from the run it started from")[1]
    assert "<td>optim.lr</td><td>0.5</td><td>0.001</td>" in started
    assert "<td>model.size</td>" not in page.split("Keys that differ")[1].split("<details>")[0]


def test_values_are_written_as_in_a_recipe(tmp_path):
    probe = probing(tmp_path / "probe")
    config = {"init": "none", "probes": ["knn"], "baselines": True, "store": None}
    (probe / "config.yaml").write_text(yaml.safe_dump(config))
    page = page_of(probe)
    assert "<td>store</td><td>null</td>" in page and "<td>baselines</td><td>true</td>" in page


def test_confusion_and_accuracies_of_a_classifier(tmp_path):
    page = page_of(finetuning(tmp_path / "tuned"))
    assert "6 of 7" in page and "50.0%" in page and "Top-1 accuracy, one view" in page
    assert "wave &amp; turn as jump: 1 (50%)" in page
    assert CLASSES[1] not in page and "&lt;b&gt;run&lt;/b&gt;" in page


def test_probe_table(tmp_path):
    page = page_of(probing(tmp_path / "probe"))
    assert "runs/&lt;i&gt;mine&lt;/i&gt;" in page and "62.5%" in page and "50.0% ± 10.0%" in page
    assert "(chance 33.3%)" in page and "lr=0.001" in page


def test_kinds_are_told_apart(pretrained, tmp_path):
    made = [pretrained, finetuning(tmp_path / "tuned"), probing(tmp_path / "probe")]
    kinds = [read_run(path, "x").kind for path in made]
    assert kinds == ["pre-training", "fine-tuning", "probe"]
    assert is_run(pretrained) and not is_run(tmp_path)


def test_names_are_short_and_unique(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    assert names_of(paths) == ["a/run", "b/run", f"{tmp_path.name}/c"]
    with pytest.raises(UsageError, match="same run twice"):
        names_of([paths[0], paths[0]])


def test_a_damaged_recipe_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(UsageError, match=r"config\.yaml: cannot be read"):
        read_run(tmp_path, "x")
