import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mme_core.losses import masked_loss, reconstruction_loss, visible_loss
from mme_core.tokens import distance_to_hidden, split_tokens


def test_invalid_elements_do_not_count_and_do_not_change_the_divisor():
    prediction, target = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 2, 3], [4, 5, 6]]])
    weight = torch.tensor([[[True, False, True], [False, False, False]]])
    assert masked_loss(prediction, target) == pytest.approx((1 + 4 + 9 + 16 + 25 + 36) / 6)
    assert masked_loss(prediction, target, weight) == pytest.approx((1 + 9) / 6)


@settings(max_examples=30, deadline=None)
@given(parts=st.integers(1, 4), size=st.integers(1, 3), seed=st.integers(0, 1000))
def test_parts_of_a_batch_average_to_the_whole(parts, size, seed):
    """Processes and accumulated steps agree with one batch, whatever is invalid where."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target, noise = torch.randn(3, parts * size, 5, 4, generator=generator)
    weight = noise > 0
    whole = masked_loss(prediction, target, weight)
    chunks = zip(*(x.split(size) for x in (prediction, target, weight)))
    torch.testing.assert_close(torch.stack([masked_loss(*c) for c in chunks]).mean(), whole)


def test_half_precision_is_summed_in_float32():
    prediction = torch.full((4, 64, 216), 100.0, dtype=torch.float16)
    assert masked_loss(prediction, torch.zeros(4, 64, 216)) == pytest.approx(1e4)


def test_only_hidden_tokens_count_and_terms_are_weighted():
    torch.manual_seed(0)
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    hidden = split_tokens(mask, 2)[1]
    targets = {
        "position": (torch.randn(2, 4, 3), torch.rand(2, 4, 3) > 0.3),
        "pixel": (torch.randn(2, 4, 5), torch.ones(2, 4, 1, dtype=torch.bool)),
    }
    predictions = {"position": torch.randn(2, 2, 3), "pixel": torch.randn(2, 2, 5)}
    weights = {"position": 2.0, "pixel": 0.5}
    total, terms = reconstruction_loss(predictions, targets, hidden, weights)
    expected = 0.0
    for name, factor in weights.items():
        target, valid = targets[name]
        error = (predictions[name].flatten(0, 1) - target[mask]).square() * valid[mask]
        torch.testing.assert_close(terms[name], error.mean())
        expected += factor * error.mean()
    torch.testing.assert_close(total, expected)
    every, _ = reconstruction_loss(predictions, targets, hidden, weights, mask_invalid=False)
    assert every > total
    changed = {name: (value.clone(), valid) for name, (value, valid) in targets.items()}
    for value, _ in changed.values():
        value[~mask] = 1e9
    assert reconstruction_loss(predictions, changed, hidden, weights)[0] == total


def test_visible_tokens_count_less_far_from_hidden_ones():
    visible, hidden = torch.tensor([[0, 1, 3]]), torch.tensor([[2, 4, 5]])
    distance = distance_to_hidden(visible, hidden, (1, 1, 6))
    assert distance.tolist() == [[2, 1, 1]]
    targets = {"pixel": (torch.zeros(1, 6, 2), torch.ones(1, 6, 1, dtype=torch.bool))}
    predictions = {"pixel": torch.tensor([[[1.0, 1], [1, 1], [0, 0]]])}
    found = visible_loss(predictions, targets, visible, distance, {"pixel": 3.0})
    assert found == pytest.approx(3 * (2 / 2**0.5 + 2) / 6)


def test_distance_counts_time_rows_and_columns():
    visible, hidden = torch.tensor([[0, 17]]), torch.tensor([[8]])  # 2 × 3 × 3
    found = distance_to_hidden(visible, hidden, (2, 3, 3))
    torch.testing.assert_close(found, torch.tensor([[8.0, 1.0]]).sqrt())
