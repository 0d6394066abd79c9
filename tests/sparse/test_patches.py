"""The loss that most architectures train by."""

from __future__ import annotations

import pytest
import torch

from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.pool import Pool
from napari_volseg.sparse.stage import IGNORE


def pool(*counts: int) -> Pool:
    ids = tuple(range(1, len(counts) + 1))
    return Pool(cases=(), class_ids=ids, counts=counts, device=torch.device("cpu"))


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_the_answer_where_nothing_can_be_seen_is_the_balance_asked_for(balance, expected):
    """With nothing to go by, probabilities are the frequencies, as far as they are wanted."""
    target = torch.zeros(1, 100, dtype=torch.long)
    target[0, :10] = 1
    loss = labeled_loss(TrainingConfig(balance=balance, dice_weight=0), pool(90, 10))
    answer = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([answer], max_iter=100)

    def closure():
        optimizer.zero_grad()
        value = loss(answer[None, :, None].expand(1, 2, 100), target)
        value.backward()
        return value

    optimizer.step(closure)
    assert float(answer.softmax(0)[0].detach()) == pytest.approx(expected, abs=1e-3)


def test_a_rare_class_pulls_as_hard_as_a_common_one():
    """At an answer that is right about frequencies, both classes' gradients are alike."""
    target = torch.full((1, 1, 1, 100), IGNORE)
    target[..., :95], target[..., 95:] = 0, 1
    logits = torch.tensor([0.95, 0.05]).log().view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 100)
    logits = logits.clone().requires_grad_()
    loss = labeled_loss(TrainingConfig(balance=0, dice_weight=0), pool(95, 5))
    loss(logits, target).backward()
    common, rare = logits.grad[0, 1, 0, 0, :95].sum(), logits.grad[0, 1, 0, 0, 95:].sum()
    assert float(common) == pytest.approx(-float(rare), rel=1e-3)
    assert float(common) > 0.2


def test_a_class_without_voxels_is_no_trouble():
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    target = torch.randint(0, 2, (1, 4, 4, 4))
    loss = labeled_loss(TrainingConfig(), pool(5, 3, 0))(logits, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
