from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.models.plain_unet3d import (
    PlainUNet3DConfig,
    build,
    stages,
)
from napari_volseg.models.registry import get_architecture
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.views import View, view_of
from napari_volseg.training.events import Command
from napari_volseg.training.loop import train

NAMES = ("plain_unet3d_1", "plain_unet3d_2")
TINY = PlainUNet3DConfig(channels=2, pooling=((2, 2, 2),), box=(8, 12, 12))
CPU = torch.device("cpu")


def painted(shape=(20, 30, 26), spacing=(1.0, 1.0, 1.0)) -> Case:
    """A volume in two halves with one painted slice."""
    truth = np.ones(shape, np.uint8)
    truth[:, shape[1] // 2 :] = 2
    noise = np.random.default_rng(0).normal(0, 0.2, shape)
    labels = np.zeros(shape, np.uint8)
    labels[shape[0] // 2] = truth[shape[0] // 2]
    return Case(Volume((truth + noise).astype(np.float32)[None], spacing), Annotation(labels))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "count", "norms"),
    [("plain_unet3d_1", 22_578_946, 8), ("plain_unet3d_2", 5_602_306, 6)],
)
def test_the_layer_tables(name, count, norms):
    architecture = get_architecture(name)
    assert architecture.paper_parameters() == count
    with torch.device("meta"):
        module = build(architecture.presets["paper"], 1, 2)
        assert module.unet(torch.empty(1, 1, 64, 160, 160)).shape == (1, 2, 64, 160, 160)
    assert sum(isinstance(layer, nn.BatchNorm3d) for layer in module.modules()) == norms
    order = [type(layer).__name__ for layer in module.down[0]]
    assert order == ["Conv3d", "ReLU", "BatchNorm3d"] * 2
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in module.down[-1])
    assert module.classify.kernel_size == (3, 3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_sizes(name):
    presets = get_architecture(name).presets
    # Cardiac: 320 x 320 x 90 to 130; spleen: 512 x 512 x 40 to 168.
    assert presets["paper"].resized((110, 320, 320)) == (55, 160, 160)
    assert presets["paper_128x128x32"].resized((40, 512, 512)) == (10, 128, 128)
    assert presets["paper_128x128x32"].resized((168, 512, 512)) == (32, 98, 98)
    assert presets["paper_128_stretched"].resized((110, 320, 320)) == (128, 128, 128)


@given(size=st.tuples(*[st.integers(1, 30)] * 3), classes=st.integers(2, 4), keep=st.booleans())
def test_any_size_gives_its_own_size(size, classes, keep):
    config = PlainUNet3DConfig(
        channels=2, pooling=((1, 2, 2), (2, 2, 2)), box=(4, 8, 8), keep_aspect=keep
    )
    logits = build(config, 2, classes).eval()(torch.zeros(1, 2, *size))
    assert logits.shape == (1, classes, *size)


def opinionated(module: nn.Module) -> nn.Module:
    """Give a network an opinion: a fresh one starts without."""
    nn.init.normal_(module.classify.weight)
    return module


@pytest.mark.parametrize("shape", [(20, 30, 26), (3, 30, 5), (4, 6, 6)])
@pytest.mark.parametrize("keep", [True, False])
def test_every_painted_voxel_is_judged_where_it_is_predicted(shape, keep):
    """The loss is that of the prediction at the volume's own resolution."""
    config = PlainUNet3DConfig(channels=2, pooling=((2, 2, 2),), box=(8, 12, 12), keep_aspect=keep)
    training = TrainingConfig(augmentation=0, gray_value=0)
    pool = build_pool([painted(shape)], training, CPU)
    module = opinionated(build(config, 1, 2)).eval()
    (stage,) = stages(config, training, pool)
    assert list(stage.prepare(module)) == [1.0]
    batch = stage.sample(generator())
    assert len(batch[0].target) == sum(pool.counts)
    logits = module(pool.cases[0].standardized[None])
    expected = labeled_loss(training, pool)(
        logits, torch.from_numpy(pool.cases[0].target)[None].long()
    )
    assert expected > 0
    torch.testing.assert_close(stage.loss(module, batch, 0), expected, atol=1e-4, rtol=1e-4)


def test_a_view_without_labels_gives_no_loss():
    training = TrainingConfig(steps=1)
    pool = build_pool([painted()], training, CPU)
    (stage,) = stages(TINY, training, pool)
    module = opinionated(build(TINY, 1, 2))
    view = view_of(pool.cases[0], (8, 12, 12), CPU)
    empty = View(view.image, view.points[:0], view.target[:0], view.spacing)
    loss = stage.loss(module, (empty,), 0)
    loss.backward()
    assert loss == 0
    assert not any(p.grad.any() for p in module.parameters())


@pytest.mark.parametrize(("name", "late"), [("plain_unet3d_1", 1.0), ("plain_unet3d_2", 0.01)])
def test_the_papers_rate_and_its_decay(name, late):
    architecture = get_architecture(name)
    pool = build_pool([painted()], TrainingConfig(), CPU)

    def stage(**settings):
        (only,) = architecture.stages(
            architecture.presets["paper"], TrainingConfig(**settings), pool
        )
        return only

    weights = [nn.Parameter(torch.zeros(1))]
    assert stage().optimizer(weights).param_groups[0]["lr"] == 1e-4
    assert stage(learning_rate=0.5).optimizer(weights).param_groups[0]["lr"] == 0.5
    rates = [stage().schedule(fraction, []) for fraction in (0.0, 0.3, 0.35, 0.6, 0.7, 1.0)]
    middle = late**0.5
    assert rates == pytest.approx([1.0, 1.0, middle, middle, late, late])


@pytest.mark.parametrize(("name", "dice"), [("plain_unet3d_1", 0.0), ("plain_unet3d_2", 1.0)])
def test_the_papers_training_runs_and_resumes(name, dice):
    config = TrainingConfig(
        model=name, preset="paper", steps=6, dice_weight=dice, augmentation=0.5, device="cpu",
        options={"channels": 2, "box": (16, 16, 16)},
    )  # fmt: skip
    cases = [painted(), painted((9, 31, 17))]
    events = list(train(cases, config))
    losses = [event.loss for event in events if event.loss is not None]
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    running = train(cases, config)
    while next(running).step < 3:
        pass
    stopped = running.send(Command.STOP).checkpoint
    resumed = list(train(cases, config, resume=stopped))[-1].checkpoint
    whole = events[-1].checkpoint
    assert all(torch.equal(whole.weights[k], resumed.weights[k]) for k in whole.weights)


def test_the_users_batch_size_goes_first():
    pool = build_pool([painted()], TrainingConfig(), CPU)
    for chosen, expected in ((0, 1), (3, 3)):
        (stage,) = stages(TINY, TrainingConfig(batch_size=chosen), pool)
        list(stage.prepare(build(TINY, 1, 2)))
        assert len(stage.sample(generator())) == expected


@pytest.mark.parametrize("name", NAMES)
def test_auto_keeps_what_it_can_of_the_voxels(name):
    architecture = get_architecture(name)

    def auto(*cases):
        return architecture.auto(cases, CPU, TrainingConfig())

    small = auto(painted((16, 32, 48)))
    assert small.resized((16, 32, 48)) == (16, 32, 48)
    # Coarse voxels keep their depth, the others shrink; voxels become isotropic if they can.
    coarse = auto(painted((40, 200, 200), (4.0, 1.0, 1.0)))
    assert coarse.resized((40, 200, 200)) == (40, 80, 80)
    assert coarse.resized((20, 200, 200)) == (20, 80, 80)
    large = auto(painted((200, 200, 200), (2.0, 1.0, 1.0)))
    z, y, x = large.resized((200, 200, 200))
    assert 0.7 < (2 * 200 / z) / (200 / y) < 1.4
    assert z * y * x < 1.5 * 64**3
    thin = auto(painted((2, 300, 30)))
    assert thin.divisor[0] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "both begin at 1"),
        ({"batch_size": 0}, "both begin at 1"),
        ({"box": (60, 160, 160)}, r"choose multiples of \(16, 16, 16\)"),
        ({"axis_scale": (0.0, 1.0, 1.0)}, "must be positive"),
        ({"learning_rate": 0.0}, "give a positive number"),
        ({"schedule": "steps"}, "choose constant, thirds or cosine"),
    ],
)
def test_settings_that_build_no_network_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PlainUNet3DConfig(**settings)
