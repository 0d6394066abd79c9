from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_volseg.inference.ledger import MARKED, META, RESULTS, Ledger
from napari_volseg.sparse.convolution import Conv3d

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
KILO = 4 * 1000
"""Bytes of a thousand numbers."""


def numbers(*shape: int) -> torch.Tensor:
    return torch.empty(*(shape or (1000,)), device=META)


def test_what_lives_at_once_is_counted():
    with Ledger(CPU) as ledger:
        first = numbers()
        second = first * 2
        assert (ledger.held, ledger.peak) == (2 * KILO, 2 * KILO)
        view = first[:10].view(2, 5)
        del first
        assert ledger.held == 2 * KILO
        del view, second
        assert (ledger.held, ledger.peak) == (0, 2 * KILO)


def test_what_was_there_before_is_counted_once_it_is_used():
    before = numbers()
    with Ledger(CPU) as ledger:
        found = before + before
        assert ledger.held == 2 * KILO
    del found


def test_what_changes_in_place_takes_no_more():
    with Ledger(CPU) as ledger:
        values = numbers().normal_()
        values.relu_().add_(1).mul_(torch.ones(1000))
        assert ledger.peak <= 2 * KILO and ledger.held == KILO


def test_a_second_time_counts_as_much_as_the_first():
    """What is known of shapes is known to every ledger, and makes no difference."""
    RESULTS.clear()
    peaks = []
    for _ in range(2):
        with Ledger(CPU) as ledger:
            for _ in range(2):
                ledger.forget_peak()
                found = numbers().exp() + numbers().sum()
                peaks.append(ledger.peak)
                del found
    assert RESULTS and len(set(peaks)) == 1 and peaks[0] > 2 * KILO


def test_what_is_remembered_of_shapes_has_an_end(monkeypatch):
    RESULTS.clear()
    monkeypatch.setattr("napari_volseg.inference.ledger.MOST_RESULTS", 3)
    for n in range(1, 9):
        with Ledger(CPU) as ledger:
            found = numbers(n).exp()
            assert ledger.peak == 8 * n
            del found
    assert 0 < len(RESULTS) <= 3


def test_what_a_backward_pass_needs_is_held_until_then():
    with Ledger(CPU) as ledger:
        weight = numbers().requires_grad_()
        loss = weight.exp().sin().exp().sum()
        # The weight, and what exp gave, both times; sin's gradient is made of the first.
        assert ledger.held == 3 * KILO + 4
        loss.backward()
        del loss
        assert ledger.held == 2 * KILO and weight.grad is not None


def test_as_much_is_kept_for_the_backward_pass_as_a_real_step_keeps():
    net = nn.Sequential(
        nn.Conv3d(4, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(inplace=True),
        nn.MaxPool3d(2), nn.Conv3d(8, 8, 3, padding=1), nn.Upsample(scale_factor=2),
    )  # fmt: skip
    image = torch.zeros(2, 4, 8, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), id):
        net(image)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    with Ledger(CUDA) as ledger:
        found = net.to(META)(image.to(META))
        held = ledger.held - found.untyped_storage().nbytes()
    assert held == pytest.approx(real, rel=0.05)


def test_what_asks_for_values_gets_some():
    with Ledger(CPU):
        mask = numbers() > 0
        assert len(mask.nonzero()) == len(numbers()[mask]) == 1000 * MARKED
        assert bool(mask.any()) and int(numbers().long().max()) == 1
        assert numbers(5).cpu().tolist() == [0] * 5
        counts = torch.zeros(1000, dtype=torch.long, device=META).bincount(minlength=7)
        assert counts.shape == (7,)
        values = numbers()
        values[mask] = 0
        assert values.device == META


def test_large_labels_are_not_looked_at():
    labels = torch.zeros(1).expand(2**12, 2**13)
    with Ledger(CPU):
        assert (labels != 0).long().device == META
        assert (torch.zeros(2, 2) != 0).device == CPU


def test_mixed_precision_counts_half():
    with Ledger(CUDA) as ledger:
        weights = numbers()
        ledger.half = True
        found = weights * 2
        assert ledger.held == 1.5 * KILO
    del found


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_convolution_on_a_cpu_works_on_copies(last, batch):
    """Of what is not stored channels last."""
    image = numbers(batch, 4, 16, 32, 32)
    if last:
        image = image.contiguous(memory_format=torch.channels_last_3d)
    conv = Conv3d(4, 4, 3, padding=1, device=META)
    with torch.no_grad(), Ledger(CPU) as ledger:
        found = conv(image)
        more = ledger.peak - ledger.held
    of_both = image.untyped_storage().nbytes() + found.untyped_storage().nbytes()
    assert more == (0 if last else of_both)
    assert found.is_contiguous(memory_format=torch.channels_last_3d) == last


def test_the_gradients_of_a_small_image_are_computed_from_what_each_voxel_sees():
    image = numbers(1, 4, 16, 32, 32).requires_grad_()
    conv = Conv3d(4, 4, 3, padding=1, device=META)
    with Ledger(CPU) as ledger:
        found = conv(image).sum()
        ledger.forget_peak()
        held = ledger.held
        found.backward()
    assert ledger.peak - held > 27 * image.untyped_storage().nbytes()
