"""Accuracies by hand, and the tables and the picture made of them."""

import csv

import numpy as np
import pytest

from train.scoring import metrics


def test_metrics_by_hand():
    scores = np.array(
        [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]]
    )
    labels = np.array([0, 1, 1, 1, 2])
    result = metrics.measure(scores, labels, asked=8)
    assert result.top1 == pytest.approx(4 / 5)
    assert result.top5 == 1.0
    assert result.mean_class == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert result.coverage == 5 / 8
    assert result.confusion.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 1]]


def test_top5_of_more_classes():
    scores = np.arange(14.0).reshape(2, 7)[:, ::-1].copy()  # class 0 best, class 6 worst
    result = metrics.measure(scores, np.array([4, 5]), asked=2)
    assert (result.top1, result.top5) == (0.0, 0.5)


def test_classes_without_videos_are_no_part_of_the_mean():
    result = metrics.measure(np.eye(4)[:2], np.array([0, 1]), asked=2)
    assert result.mean_class == 1.0


def test_tables_and_pictures(tmp_path):
    names = ["clap", "jump, high", "wave"]
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    metrics.write_predictions(tmp_path / "p.csv", ["a", "b"], np.array([0, -1]), scores, names)
    rows = list(csv.reader((tmp_path / "p.csv").open()))
    assert rows[0][-1] == "score_3" and {len(row) for row in rows} == {8}
    assert rows[1][:4] == ["a", "clap", "clap", "0.700000"]
    assert rows[2][:4] == ["b", "", "wave", "0.600000"]
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    metrics.write_per_class(tmp_path / "c.csv", confusion, names)
    rows = list(csv.reader((tmp_path / "c.csv").open()))
    assert rows[1] == ["clap", "4", "3", "0.7500", "jump, high"]
    assert rows[2] == ["jump, high", "0", "0", "", ""]
    metrics.draw_confusion(tmp_path / "c.png", confusion, names)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
