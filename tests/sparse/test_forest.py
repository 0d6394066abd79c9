from __future__ import annotations

import torch

from napari_volseg.sparse.forest import AT_ONCE, TREES, guess

EQUAL = torch.ones(3)


def two_clouds(count=300):
    """Features around (0, 0, 0) and (1, 1, 1), and classes 0 and 1; none of class 2."""
    random = torch.Generator().manual_seed(0)
    classes = torch.arange(count) % 2
    return classes[:, None] + 0.2 * torch.randn(count, 3, generator=random), classes


def told(others, weights=EQUAL, seed=0):
    *_, (done, found) = guess(*two_clouds(), others, weights, seed)
    assert done == 1
    return found


def test_it_tells_classes_apart_and_says_of_the_far_what_it_says_of_the_nearest():
    found = told(torch.tensor([[0.0, 0, 0], [1, 1, 1], [50, 50, 50]]))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert found.argmax(1).tolist() == [0, 1, 1]
    at_the_rim = told(two_clouds()[0].max(0).values[None])
    torch.testing.assert_close(found[2:], at_the_rim)


def test_a_class_that_nobody_painted_is_not_guessed():
    assert (told(torch.rand(50, 3))[:, 2] == 0).all()


def test_the_more_a_class_weighs_the_likelier_it_is():
    between = 0.3 + 0.4 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1))
    heavy = told(between, torch.tensor([1.0, 20.0, 1.0]))
    assert heavy[:, 1].mean() > told(between)[:, 1].mean() + 0.05


def test_what_is_infinite_is_far():
    found = told(torch.tensor([[float("inf")] * 3, [float("-inf")] * 3]))
    assert found.argmax(1).tolist() == [1, 0]


def test_every_tree_counts_and_a_seed_decides():
    others = 0.5 + torch.zeros(1, 3)
    steps = list(guess(*two_clouds(), others, EQUAL, 0))
    assert [done for done, _ in steps] == [n / TREES for n in range(AT_ONCE, TREES + 1, AT_ONCE)]
    assert len({float(found[0, 0]) for _, found in steps}) > 2
    assert torch.equal(told(others), told(others))
    assert not torch.equal(told(others), told(others, seed=1))
