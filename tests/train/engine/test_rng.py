import random

import numpy as np
import torch

from train.engine import checkpoint
from train.engine.rng import rng_state, seed_all, set_rng_state


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_generators_resume_from_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path, 1, {"rng": [rng_state()]}, keep=1)
    first = draw()
    assert draw() != first
    state = checkpoint.load_last(tmp_path, lambda _: None)
    set_rng_state(state["rng"][0])
    assert draw() == first


def test_equal_seeds_draw_equal_numbers():
    draws = []
    for seed in ([0, 1], [0, 2], [0, 1]):
        seed_all(seed)
        draws.append(draw())
    assert draws[0] == draws[2] != draws[1]
