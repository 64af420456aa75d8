"""k nearest neighbours of frozen features."""

import pytest
import torch

from train.scoring import knn
from train.scoring.knn import knn_accuracy


def around(*angles):
    """Unit vectors at these angles, degrees, in a plane."""
    turns = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
    return torch.stack([turns.cos(), turns.sin()], 1)


TRAIN, LABELS = around(0, 20, 30, 180, 200, 210), torch.tensor([0, 1, 1, 2, 2, 2])


def test_a_near_neighbour_outweighs_two_farther_ones():
    """With equal votes, the two neighbours of class 1 would win."""
    assert knn_accuracy(TRAIN, LABELS, around(1), torch.tensor([0]), k=3) == 1
    assert knn_accuracy(TRAIN, LABELS, around(25), torch.tensor([1]), k=3) == 1


def test_features_are_compared_around_their_mean():
    """As seen from the origin, the test row is nearer to class 1."""
    train, labels = torch.tensor([[11.0, 1.0], [9.0, -1.0]]), torch.tensor([0, 1])
    assert knn_accuracy(train, labels, torch.tensor([[14.0, -0.6]]), labels[:1], k=1) == 1


def test_more_neighbours_than_training_rows_are_all_of_them():
    assert knn_accuracy(TRAIN, LABELS, around(190), torch.tensor([2]), k=100) == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_accuracy_does_not_depend_on_rows_at_once(monkeypatch, rows):
    torch.manual_seed(0)
    train, test = torch.randn(40, 8), torch.randn(7, 8)
    labels, expected = torch.randint(3, (40,)), torch.randint(3, (7,))
    whole = knn_accuracy(train, labels, test, expected, k=5)
    assert 0 < whole < 1
    monkeypatch.setattr(knn, "_SIMILARITIES", rows * len(train))
    assert knn_accuracy(train, labels, test, expected, k=5) == whole
