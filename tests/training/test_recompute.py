from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from napari_volseg.models.registry import architectures
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training.loop import train
from napari_volseg.training.recompute import blocks_of, recomputing
from tests.training.test_loop import make_case

QUICK = {
    "channels": 4, "filter_scales": (1.0,), "learned_filters": False, "pooling": ((2, 2, 2),),
    "kernels": ((3, 3, 3),) * 2, "patches": ((8, 16, 24),), "batch_size": 2,
}  # fmt: skip
CONFIG = TrainingConfig(steps=6, device="cpu", options=QUICK, held_out=0.2)


def block(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True),
        nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True), *last,
    )  # fmt: skip


def test_weights_and_statistics_are_those_of_steps_that_keep_features():
    """Of the whole training: network, averaged weights, optimizer."""
    kept, twice = (
        list(train(make_case(shape=(16, 32, 32)), replace(CONFIG, recompute=name)))[-1].checkpoint
        for name in ("never", "always")
    )
    assert twice.progress["recompute"] and not kept.progress["recompute"]
    assert any("running_var" in name for name in twice.state)
    assert twice.state.keys() == kept.state.keys()
    for name, tensor in kept.state.items():
        assert torch.equal(twice.state[name], tensor), name


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_gradients_are_the_same_also_in_mixed_precision(half):
    torch.manual_seed(0)
    image = torch.randn(2, 2, 4, 6, 8)
    one = nn.Sequential(block(), nn.Conv3d(4, 2, 1), block())
    other = deepcopy(one)
    for net, way in ((one, nullcontext()), (other, recomputing(other))):
        for _ in range(2):
            with way, torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = net(image).float().square().mean()
            loss.backward()
            way = nullcontext() if net is one else recomputing(other)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_less_is_kept_until_the_gradients_ask_for_it():
    sizes = []
    for way in (nullcontext, recomputing):
        net, kept = nn.Sequential(nn.Conv3d(2, 2, 1), block()), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t.numel()), id):
            with way(net) if way is recomputing else way():
                net(torch.zeros(1, 2, 4, 8, 8))
        sizes.append(sum(kept))
    assert sizes[1] < 0.3 * sizes[0]


def test_a_network_is_left_as_it_was():
    net = block()
    before = dict(vars(net))
    with pytest.raises(RuntimeError, match="channels"), recomputing(net):
        net(torch.zeros(1, 3, 4, 4, 4))
    assert vars(net) == before and torch.equal(net[1].running_mean, torch.zeros(4))


def test_what_draws_at_random_is_not_computed_twice():
    assert blocks_of(block()) and not blocks_of(block(nn.Dropout(0.5)))


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_has_something_to_compute_twice(name):
    network = architectures()[name]
    with torch.device("meta"):
        module = network.build(network.presets["paper"], 1, 3)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    inside = [m for part in blocks_of(module) for m in part if m in convolutions]
    assert len(inside) == len(set(inside)) > 0.5 * len(convolutions) * (name != "two_stage")
