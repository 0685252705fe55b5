import math

import pytest
import torch
from torch.nn import functional

from ubend.method.energy import dice_term, distance_term, weighted_cross_entropy


def drawn(seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, classes, 5, 7, generator=generator) * 3
    labels = torch.randint(0, classes, (2, 5, 7), generator=generator)
    weights = torch.rand(2, 5, 7, generator=generator) + 0.1
    return scores, labels, weights


def test_by_hand():
    scores = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])  # two pixels, two classes
    labels = torch.tensor([[[0, 0]]])
    weights = torch.tensor([[[1.0, 3.0]]])
    first = -math.log(math.exp(2) / (math.exp(2) + 1))
    second = -math.log(1 / (1 + math.exp(1)))
    expected = (1 * first + 3 * second) / 2
    assert float(weighted_cross_entropy(scores, labels, weights)) == pytest.approx(expected, rel=1e-6)


def test_without_weights_it_is_the_mean_cross_entropy():
    scores, labels, _ = drawn()
    torch.testing.assert_close(weighted_cross_entropy(scores, labels), functional.cross_entropy(scores, labels))


def test_weights_multiply_each_pixel():
    scores, labels, weights = drawn()
    expected = (weights * functional.cross_entropy(scores, labels, reduction="none")).mean()
    torch.testing.assert_close(weighted_cross_entropy(scores, labels, weights), expected)


def test_weight_0_and_negative_labels_are_left_out_of_sum_and_count():
    scores, labels, weights = drawn()
    weights[0] = 0
    labels[1, :2] = -1
    kept = scores[1:, :, 2:], labels[1:, 2:], weights[1:, 2:]
    torch.testing.assert_close(weighted_cross_entropy(scores, labels, weights), weighted_cross_entropy(*kept))


def test_nothing_labelled_costs_nothing_and_has_a_gradient():
    scores = torch.randn(1, 2, 3, 3, requires_grad=True)
    energy = weighted_cross_entropy(scores, torch.full((1, 3, 3), -1))
    energy.backward()
    assert float(energy.detach()) == 0
    assert not scores.grad.any()


def test_stable_for_huge_scores():
    scores = torch.tensor([[[[1e4]], [[-1e4]]]])
    assert float(weighted_cross_entropy(scores, torch.tensor([[[1]]]))) == pytest.approx(2e4)


def test_dice_of_perfect_and_of_wrong_answers():
    labels = torch.tensor([[[0, 1, 1]]])
    sure = torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).float() * 200 - 100
    assert float(dice_term(sure, labels)) == pytest.approx(0)
    assert float(dice_term(-sure, labels)) == pytest.approx(1)


def test_dice_by_hand_and_without_ignored_pixels():
    scores = torch.zeros(1, 2, 1, 3)  # p = 1/2 everywhere
    labels = torch.tensor([[[0, 1, -1]]])
    # each class: 2 * 0.5 / (1 + 1) = 0.5
    assert float(dice_term(scores, labels)) == pytest.approx(0.5)


def test_dice_leaves_out_classes_that_do_not_occur():
    scores, _, _ = drawn()
    labels = torch.zeros(2, 5, 7, dtype=torch.int64)
    p = torch.softmax(scores, 1)[:, 0]
    assert float(dice_term(scores, labels)) == pytest.approx(float(1 - 2 * p.sum() / (p.sum() + labels.numel())))


def test_distance_by_hand():
    """Errors 0.5, 0.25 and one that nobody labelled."""
    predicted, distance = torch.tensor([[[0.5, 0.75, 9.0]]]), torch.ones(1, 1, 3)
    assert float(distance_term(predicted, distance, torch.tensor([[[1, 2, -1]]]))) == pytest.approx((0.5 + 0.25) / 2)


def test_distance_where_nothing_is_labelled_costs_nothing_and_has_a_gradient():
    predicted = torch.ones(1, 2, 2).requires_grad_()
    energy = distance_term(predicted, torch.zeros(1, 2, 2), torch.full((1, 2, 2), -1))
    energy.backward()
    assert energy.item() == 0
    assert not predicted.grad.any()
