"""k-nearest-neighbour accuracy of frozen features: a probe without training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # of the votes, as in instance discrimination and DINO
_SIMILARITIES = 1 << 28  # in memory at once: 1 GiB. Those of all of Kinetics would be 37 GB


def knn_accuracy(
    train_ND: Tensor, train_labels_N: Tensor, test_MD: Tensor, test_labels_M: Tensor, k: int
) -> float:
    """Share of the test rows whose label gets most votes of their k nearest training rows.

    Features, float [., D], are centred on the training mean and compared by cosine similarity. The
    vote of a neighbour weighs exp(similarity / TEMPERATURE). Labels are int64, from 0.
    """
    mean = train_ND.float().mean(0)
    train, test = (F.normalize(x.float() - mean, dim=1) for x in (train_ND, test_MD))
    classes = int(torch.max(train_labels_N.max(), test_labels_M.max())) + 1
    found = []
    for rows in test.split(max(_SIMILARITIES // len(train), 1)):
        similarity, index = (rows @ train.T).topk(min(k, len(train)), dim=1)
        weight = ((similarity - similarity[:, :1]) / TEMPERATURE).exp()
        votes = torch.zeros(len(rows), classes, device=rows.device)
        found.append(votes.scatter_add_(1, train_labels_N[index], weight).argmax(1))
    return float((torch.cat(found) == test_labels_M).float().mean())
