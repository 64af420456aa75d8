"""How often each of several stores has its turn in an epoch of pre-training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mme_core.clips.draws import order_rng, store_rng
from mme_core.errors import UsageError


class Mix:
    """The order of the videos of several stores, a pure function of seed and epoch.

    sizes    number of videos in each store, which are numbered one store after the other
    weights  of the stores; raises UsageError where one is too small for a single turn

    An epoch has as many videos as all stores together, each store in proportion to its weight. The
    videos of a store come in *passes*: each pass is a new order of all its videos, and goes on
    where the last epoch ended. So a store's videos are seen equally often, whatever its weight.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float]) -> None:
        self.sizes = list(sizes)
        total, whole = sum(self.sizes), np.array(weights, np.float64)
        # Whole numbers that add up to the epoch: the largest remainders are rounded up.
        exact = whole / whole.sum() * total
        self.turns = np.floor(exact).astype(int)
        for store in np.argsort(self.turns - exact, kind="stable")[: total - self.turns.sum()]:
            self.turns[store] += 1
        if not self.turns.all():
            raise UsageError(
                f"data.mix={list(weights)}: store {self.turns.argmin() + 1} would never be seen in "
                f"the {total} videos of an epoch: raise its weight"
            )

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(pass, video) of each place of an epoch, int64 [videos] both.

        A pair occurs once in a run: the pass takes the epoch's place in what a clip is drawn from.
        """
        passes, videos, first = [], [], 0
        for store, (size, turns) in enumerate(zip(self.sizes, self.turns.tolist())):
            place = np.arange(epoch * turns, (epoch + 1) * turns)
            number, member = np.divmod(place, size)
            orders = {
                one: store_rng(seed, store, one).permutation(size) for one in np.unique(number)
            }
            found = [orders[one][m] for one, m in zip(number, member)]
            passes.append(number)
            videos.append(first + np.array(found, np.int64))
            first += size
        order = order_rng(seed, epoch).permutation(first)
        return np.concatenate(passes)[order], np.concatenate(videos)[order]
