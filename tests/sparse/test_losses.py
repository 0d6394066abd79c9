from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from napari_volseg.sparse.losses import balanced_weights, cross_entropy, dice_loss
from napari_volseg.sparse.stage import IGNORE

WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
LOSSES = {
    "cross_entropy": lambda logits, target: cross_entropy(logits, target),
    "weighted": lambda logits, target: cross_entropy(logits, target, WEIGHTS),
    "dice": lambda logits, target: dice_loss(logits, target),
    "foreground_dice": lambda logits, target: dice_loss(logits, target, background=False),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(-1, 3, (2, 4, 5, 6), generator=generator)
    return logits, target


def value_and_gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


@every_loss
@given(seed=st.integers(0, 1000))
def test_values_at_unlabeled_voxels_change_nothing(loss, seed):
    logits, target = example(seed)
    unlabeled = (target == IGNORE)[:, None].expand_as(logits)
    changed = torch.where(unlabeled, torch.randn_like(logits) * 100, logits)
    value, gradient = value_and_gradient(loss, logits, target)
    value_changed, gradient_changed = value_and_gradient(loss, changed, target)
    assert torch.equal(value, value_changed)
    assert torch.equal(gradient, gradient_changed)
    assert not gradient[unlabeled].any()
    assert gradient[~unlabeled].any()


@every_loss
def test_added_unlabeled_voxels_change_nothing(loss):
    logits, target = example()
    value, gradient = value_and_gradient(loss, logits, target)
    wider_logits = functional.pad(logits, (0, 3, 2, 0), value=7.0)
    wider_target = functional.pad(target, (0, 3, 2, 0), value=IGNORE)
    value_wider, gradient_wider = value_and_gradient(loss, wider_logits, wider_target)
    torch.testing.assert_close(value_wider, value)
    torch.testing.assert_close(gradient_wider[..., 2:, :-3], gradient)


@every_loss
def test_nothing_labeled_is_zero_with_zero_gradient(loss):
    logits, target = example()
    value, gradient = value_and_gradient(loss, logits, torch.full_like(target, IGNORE))
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@every_loss
def test_a_class_that_nobody_labeled_is_not_nan(loss):
    logits, target = example()
    value, gradient = value_and_gradient(loss, logits, torch.where(target == 2, IGNORE, target))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, 5.0]], [[0.0, -5.0]]]).movedim(0, 1)  # one voxel known: p = 1/2
    target = torch.tensor([[0, IGNORE]])
    assert cross_entropy(logits, target) == pytest.approx(0.693147, abs=1e-5)


def test_class_weights_scale_the_influence_of_a_class():
    logits = torch.zeros(1, 2, 2)
    logits[0, 0, 0] = 3.0  # voxel 0 is class 0 and right, voxel 1 is class 1 and undecided
    target = torch.tensor([[0, 1]])
    even = cross_entropy(logits, target)
    heavier = cross_entropy(logits, target, torch.tensor([1.0, 3.0]))
    right, undecided = 0.0486, 0.6931
    assert even == pytest.approx((right + undecided) / 2, abs=1e-3)
    assert heavier == pytest.approx((right + 3 * undecided) / 4, abs=1e-3)


def test_dice_by_hand():
    # Probabilities 3/4 and 1/4 for the two labeled voxels of a two-class problem.
    logits = torch.log(torch.tensor([[[3.0, 1.0, 9.0], [1.0, 3.0, 9.0]]]))
    target = torch.tensor([[0, 1, IGNORE]])
    dice = (2 * 0.75 + 1) / (1 + 1 + 1)
    assert dice_loss(logits, target) == pytest.approx(1 - dice, abs=1e-6)


def test_perfect_prediction_has_no_loss():
    target = torch.tensor([[0, 1, 2, IGNORE]])
    logits = functional.one_hot(target.clamp_min(0), 3).float().movedim(-1, 1) * 50
    assert cross_entropy(logits, target) < 1e-6
    assert dice_loss(logits, target) < 1e-6


@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=5))
def test_full_balance_gives_every_class_the_same_influence(counts):
    weights = balanced_weights(counts, balance=1)
    influence = [w * c for w, c in zip(weights, counts, strict=True)]
    assert influence == pytest.approx([influence[0]] * len(counts))
    assert sum(influence) == pytest.approx(sum(counts))


def test_no_balance_keeps_frequencies_and_an_adjustment_multiplies():
    assert balanced_weights([100, 50], balance=0) == pytest.approx((1, 1))
    adjusted = balanced_weights([100, 100], balance=0, adjust=[1, 3])
    assert adjusted[1] / adjusted[0] == pytest.approx(3)


def test_a_class_without_voxels_weighs_nothing():
    assert balanced_weights([10, 0], balance=1)[1] == 0


def test_wrong_number_of_weights_is_refused():
    with pytest.raises(ValueError, match="2 class weights for 3 classes"):
        balanced_weights([1, 2, 3], balance=1, adjust=[1, 1])
