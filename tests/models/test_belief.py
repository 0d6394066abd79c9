"""What to make of a network's opinions."""

import numpy as np
import pytest
import torch

from napari_volseg.models.belief import (
    LARGEST_SHIFT,
    LEAST_TRUST,
    MOST_TRUST,
    Belief,
    fit_belief,
    fit_shift,
    fit_trust,
    pool_opinions,
)


def opinions_and_classes(*sharpness: float, voxels: int = 20_000):
    """Opinions with independent errors, as sure as ``sharpness`` times what is right."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(len(sharpness), 3, voxels, generator=random)
    classes = torch.multinomial(logits.sum(0).softmax(0).T, 1, generator=random)[:, 0]
    stated = logits * torch.tensor(sharpness)[:, None, None]
    return stated.softmax(1), classes


@pytest.mark.parametrize("sharpness", [(0.5,), (1.0,), (3.0,), (0.5, 2.0), (1.0, 1.0)])
def test_trust_makes_up_for_what_opinions_are_off_by(sharpness):
    trust = fit_trust(*opinions_and_classes(*sharpness))
    assert trust == pytest.approx([1 / s for s in sharpness], rel=0.05)


def test_who_knows_nothing_has_no_say():
    opinions, classes = opinions_and_classes(1.0)
    guesses = torch.rand(opinions.shape, generator=torch.Generator().manual_seed(1)).softmax(1)
    of_guesses, of_opinion = fit_trust(torch.cat([guesses, opinions]), classes)
    assert of_guesses < 0.2
    assert of_opinion == pytest.approx(1, rel=0.05)


def test_few_voxels_move_trust_little():
    opinions = torch.tensor([[[0.9, 0.2], [0.1, 0.8]], [[0.6, 0.4], [0.4, 0.6]]])
    for of_part in fit_trust(opinions, torch.tensor([0, 1])):
        assert 0.5 < of_part < 2
    for of_part in fit_trust(opinions, torch.tensor([1, 0])):
        assert LEAST_TRUST <= of_part < 0.5


def test_strokes_keep_trust_near_equal_however_many_their_voxels_are():
    few, many = (opinions_and_classes(0.5, 0.4, voxels=n) for n in (2_000, 20_000))
    of_slices, half, of_strokes = (fit_trust(*many, strokes) for strokes in (0.0, 0.5, 1.0))
    for slices, between, strokes in zip(of_slices, half, of_strokes, strict=True):
        assert abs(strokes - 0.5) < abs(between - 0.5) < abs(slices - 0.5)
    assert abs(of_strokes[0] - 0.5) < 0.5 * abs(of_slices[0] - 0.5)
    assert of_strokes == pytest.approx(fit_trust(*few, 1.0), abs=0.05)


def test_second_opinions_have_no_say_for_nothing_where_all_paint_is_strokes():
    opinions, classes = opinions_and_classes(1.0, 1.0, 1.0, voxels=4)
    assert fit_trust(opinions, classes, 0.0, second=1) == fit_trust(opinions, classes, 0.0)
    few = fit_trust(opinions[:, :, :1], classes[:1], 1.0, second=1)
    assert few[0] == pytest.approx(0.5, abs=0.05) and few[2] < 0.05
    some = fit_trust(opinions[:, :, :1], classes[:1], 0.5, second=1)
    assert some[:2] == pytest.approx((0.4, 0.4), abs=0.05)
    assert some[2] == pytest.approx(0.2, abs=0.05)


def test_trust_is_bounded_also_where_an_opinion_is_certain():
    opinions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).repeat(1, 1, 1000)
    classes = torch.tensor([0, 1]).repeat(1000)
    (right,), (wrong,) = fit_trust(opinions, classes), fit_trust(opinions, 1 - classes)
    assert right <= MOST_TRUST
    assert wrong == LEAST_TRUST


def test_what_was_not_there_when_trust_was_fitted_has_no_say():
    opinions, classes = opinions_and_classes(1.0, 0.5, 2.0)
    belief = Belief(fit_trust(opinions[:2], classes))
    expected = pool_opinions(opinions[:2], belief)
    torch.testing.assert_close(pool_opinions(opinions, belief), expected)


def test_equal_trust_is_the_geometric_mean():
    opinions = opinions_and_classes(1.0, 2.0, voxels=50)[0]
    geometric = (opinions[0] * opinions[1]).sqrt()
    # Who is all but certain is taken as a little less so.
    near = {"atol": 2e-3, "rtol": 0}
    torch.testing.assert_close(
        pool_opinions(opinions, Belief()), geometric / geometric.sum(0), **near
    )
    torch.testing.assert_close(pool_opinions(opinions[:1], Belief()), opinions[0], **near)


def seen_by_paint(common, painted, voxels=50_000):
    """Probabilities of a volume's voxels, if its classes were as common as in the paint."""
    random = torch.Generator().manual_seed(0)
    classes = torch.multinomial(torch.tensor(common), voxels, replacement=True, generator=random)
    gray = torch.randn(voxels, generator=random) + 2.0 * classes
    means = 2.0 * torch.arange(len(common))
    likely = (-0.5 * (gray - means[:, None]) ** 2).exp() * torch.tensor(painted)[:, None]
    return likely / likely.sum(0), classes


@pytest.mark.parametrize("common", [(0.8, 0.2), (0.5, 0.5), (0.7, 0.2, 0.1)])
def test_how_common_classes_are_is_read_off_the_volume(common):
    painted = [1 / len(common)] * len(common)
    probabilities, classes = seen_by_paint(common, painted)
    shift = fit_shift(probabilities, [100] * len(common))
    expected = np.log(np.array(common) / np.array(painted))
    assert shift == pytest.approx(expected, abs=0.06)
    right = (probabilities.argmax(0) == classes).float().mean()
    shifted = pool_opinions(probabilities[None], Belief((1.0,), shift))
    if common != (0.5, 0.5):
        assert (shifted.argmax(0) == classes).float().mean() > right + 0.02


def test_a_painted_class_does_not_vanish_for_being_rare():
    probabilities, _ = seen_by_paint((1.0, 0.0), (0.5, 0.5))
    shift = fit_shift(probabilities, [100, 100])
    assert shift[1] == pytest.approx(-LARGEST_SHIFT)


def test_only_strokes_leave_open_how_common_classes_are():
    opinions, classes = opinions_and_classes(1.0)
    anywhere, _ = seen_by_paint((0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3))
    whole, half, strokes = (
        fit_belief(opinions, classes, [100] * 3, part, anywhere[None]) for part in (0.0, 0.5, 1.0)
    )
    assert whole.shift == (0, 0, 0) and strokes.shift[0] > 0.3
    np.testing.assert_allclose(half.shift, np.array(strokes.shift) / 2, rtol=0.02)


def test_a_shift_is_added_to_the_classes():
    opinions = opinions_and_classes(1.0, voxels=50)[0]
    shifted = pool_opinions(opinions, Belief((1.0,), (0.0, float(np.log(3)), 0.0)))
    expected = opinions[0] * torch.tensor([1.0, 3.0, 1.0])[:, None]
    torch.testing.assert_close(shifted, expected / expected.sum(0), atol=1e-3, rtol=0)


def test_where_the_last_opinions_are_not_known_the_first_ones_have_their_say():
    opinions, _ = opinions_and_classes(1.0, 2.0, 0.5, voxels=50)
    belief = Belief((0.2, 0.4, 0.6), (0.5, 0.0, -0.5))
    expected = pool_opinions(opinions[:2], Belief((0.4, 0.8), belief.shift))
    torch.testing.assert_close(pool_opinions(opinions[:2], belief), expected)
