from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import plan_tiles, predict_volume
from napari_volseg.models import two_stage
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.two_stage import dynamic_tile, fit, probabilities, walk
from napari_volseg.models.two_stage_nets import (
    TwoStage,
    TwoStageConfig,
    at_labels,
    build,
    read_region,
)
from napari_volseg.models.two_stage_steps import (
    foreground_loss,
    label_some_slices,
    multi_class_loss,
    sample_stacks,
    sample_subvolumes,
    sample_whole,
    stages,
)
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.stage import IGNORE, Batch
from napari_volseg.sparse.whole import resample
from napari_volseg.training.events import Command
from napari_volseg.training.loop import train

SMALL = TwoStageConfig(
    net1_channels=2, net2_channels=2, blocks=2, neighbors=3, coarse_spacing=2.0, sizes=(6, 9)
)
CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def opinionated(config: TwoStageConfig, channels: int = 1, classes: int = 3) -> TwoStage:
    """Give the networks an opinion: fresh ones start without."""
    torch.manual_seed(0)
    module = build(config, channels, classes).eval()
    nn.init.normal_(module.net1.classify.weight)
    nn.init.normal_(module.net2.classify.weight)
    return module


def case_of(shape=(9, 20, 17), **geometry) -> Case:
    """Three classes side by side along y, the last of them on few voxels; three slices painted."""
    truth = np.ones(shape, np.uint8)
    truth[:, shape[1] // 2 :] = 2
    truth[:, -1:] = 3
    image = truth[None] * 50.0 + np.random.default_rng(0).normal(0, 3, (1, *shape))
    labels = np.zeros_like(truth)
    labels[:: max(1, shape[0] // 3)] = truth[:: max(1, shape[0] // 3)]
    return Case(Volume(image.astype(np.float32), **geometry), Annotation(labels))


def pool_of(case: Case, **settings):
    training = TrainingConfig(held_out=0.0, **settings)
    return training, build_pool([case], training, CPU)


# The networks


def test_the_papers_networks():
    assert get_architecture("two_stage").paper_parameters() == 23_578_160
    with torch.device("meta"):
        module = build(TwoStageConfig(), 1, 8)
    convolutions = [m for m in module.net1.modules() if isinstance(m, nn.Conv3d)][:-1]
    assert {c.kernel_size for c in convolutions} == {(5, 5, 5)}
    assert [c.dilation[0] for c in convolutions[::2]] == [2, 4, 6, 8, 8, 6, 4, 2]
    assert [m.p for m in module.modules() if isinstance(m, nn.Dropout)] == [0.2] * 8
    encoder = [m for m in module.net2.down.modules() if isinstance(m, nn.Conv3d)]
    assert encoder[0].in_channels == 2
    assert {c.kernel_size for c in encoder} == {(3, 3, 3)}
    collapse = [m.kernel_size for m in module.net2.collapse if isinstance(m, nn.Conv3d)]
    assert collapse == [(8, 1, 1), (2, 1, 1)]
    decoder = [m.kernel_size for m in module.net2.up.modules() if isinstance(m, nn.Conv2d)]
    assert set(decoder) == {(5, 5)}


@given(
    size=st.tuples(*[st.integers(1, 11)] * 3),
    axis=st.integers(0, 2),
    channels=st.integers(1, 2),
    classes=st.integers(2, 4),
    prior=st.sampled_from(["foreground", "classes"]),
)
def test_any_size_gives_its_own_size(size, axis, channels, classes, prior):
    voxel = tuple(3.0 if a == axis else 1.0 for a in range(3))
    config = replace(SMALL, voxel=voxel, prior=prior)
    logits = build(config, channels, classes)(noise(2, channels, *size))
    assert logits.shape == (2, classes, *size)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_net2_labels_a_slice_by_its_neighbors_across_the_coarsest_axis(axis):
    config = replace(SMALL, neighbors=5, voxel=tuple(4.0 if a == axis else 1.0 for a in range(3)))
    module = opinionated(config)
    seen = noise(2, 8, 8, 8)
    before = module.fine(seen, [4])
    for distance in range(1, 4):
        other = seen.clone()
        other.select(axis + 1, 4 + distance).add_(5.0)
        same = torch.equal(module.fine(other, [4]), before)
        assert same == (distance > 2)


def test_skip_connections_carry_the_middle_slice():
    module = opinionated(replace(SMALL, blocks=1, neighbors=7, net2_channels=8)).net2
    for lift in module.lift:
        nn.init.zeros_(lift.weight)
    stack = noise(1, 2, 7, 8, 8)
    before = module(stack)
    # Two convolutions of the encoder see two slices on each side of the middle one.
    for slice_, same in ((0, True), (1, False), (5, False), (6, True)):
        other = stack.clone()
        other[:, :, slice_] += 5.0
        assert torch.equal(module(other), before) == same


def test_a_thin_stack_is_mirrored():
    module = opinionated(replace(SMALL, neighbors=5))
    seen = noise(2, 3, 8, 8)
    mirrored = seen[:, [2, 1, 0, 1, 2, 1, 0]]
    torch.testing.assert_close(module.fine(seen, [0, 1, 2]), module.fine(mirrored, [2, 3, 4]))


# What goes from Net1 to Net2, and to the labels


def test_coarse_logits_are_read_as_resampling_reads_them():
    coarse, shape = noise(3, 4, 5, 3), (9, 14, 7)
    whole = resample(coarse[None], shape)[0]
    region = (slice(2, 9), slice(0, 5), slice(3, 4))
    torch.testing.assert_close(read_region(coarse, region, shape), whole[(slice(None), *region)])


def test_no_painted_voxel_is_lost_to_the_coarse_grid():
    target = torch.full((2, 9, 14, 7), IGNORE)
    target[0, 4, 3] = 1
    target[1, 8, 13, 6] = 2
    target[1, 0, 0, 0] = 0
    coarse = noise(2, 3, 2, 2, 2)
    logits, classes = at_labels(coarse, target)
    assert classes.tolist() == [[1] * 7 + [0, 2]]
    dense = resample(coarse, target.shape[1:])
    torch.testing.assert_close(logits[0, :, -2:], dense[1][:, [0, 8], [0, 13], [0, 6]])


# Losses


def test_the_losses_are_those_of_equations_1_and_2():
    training, pool = pool_of(case_of())
    found = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]])
    logits = found.log().T[None]
    target = torch.tensor([[0, 1, 2, IGNORE]])
    foreground = (2 * (0.9 + 0.7) + 1) / (0.3 + 0.9 + 0.7 + 2 + 1)
    value = foreground_loss(SMALL, training, pool)(logits, target)
    assert float(value) == pytest.approx(1 - foreground)
    dice = [(2 * p + 1) / (total + 1 + 1) for p, total in ((0.7, 1.1), (0.8, 1.3), (0.4, 0.6))]
    weights = [1 / n for n in pool.counts]
    expected = 1 - sum(w * d for w, d in zip(weights, dice, strict=True)) / sum(weights)
    value = multi_class_loss(SMALL, training, pool)(logits, target)
    assert float(value) == pytest.approx(expected)


@pytest.mark.parametrize("make", [foreground_loss, multi_class_loss])
@pytest.mark.parametrize("kind", ["dice", "mixed"])
def test_unlabeled_voxels_change_nothing(make, kind):
    loss = make(replace(SMALL, loss=kind), *pool_of(case_of()))
    logits, target = noise(1, 3, 50), torch.randint(-1, 3, (1, 50))
    labeled = target[0] != IGNORE
    other = torch.where(labeled, logits, 100.0).requires_grad_()
    value = loss(other, target)
    torch.testing.assert_close(value, loss(logits[:, :, labeled], target[:, labeled]))
    value.backward()
    assert not other.grad[:, :, ~labeled].any()
    assert other.grad[:, :, labeled].any()
    assert loss(logits, torch.full_like(target, IGNORE)) == 0


# The four steps


def test_the_four_steps_move_what_the_paper_moves():
    four = stages(SMALL, *pool_of(case_of()))
    module = build(SMALL, 1, 3)
    moving = [{id(p) for p in stage.parameters(module)} for stage in four]
    net1, net2 = ({id(p) for p in net.parameters()} for net in (module.net1, module.net2))
    assert moving == [net1, net1, net1 | net2, net2]
    assert [stage.share for stage in four] == [1, 1, 1, 1]
    assert [stage.schedule(0.9, []) for stage in four] == [1, 1, 1, 1]
    rates = [stage.optimizer(stage.parameters(module)).defaults["lr"] for stage in four]
    assert rates == [1e-4] * 4


@pytest.mark.parametrize("loss", ["dice", "mixed"])
def test_every_step_of_the_training_is_taken_and_gives_a_gradient(loss):
    config = replace(SMALL, loss=loss)
    module = opinionated(config)
    for stage in stages(config, *pool_of(case_of(), augmentation=1.0, flips=True)):
        assert all(0 <= done <= 1 for done in stage.prepare(module))
        module.train().zero_grad()
        torch.manual_seed(0)
        stage.loss(module, stage.sample(torch.Generator().manual_seed(0)), 0).backward()
        assert all(p.grad is not None and p.grad.any() for p in stage.parameters(module))


def test_end_to_end_the_fine_loss_reaches_net1():
    module = opinionated(SMALL)
    batch = Batch(noise(1, 1, 6, 8, 8), torch.full((1, 6, 8, 8), IGNORE))
    batch.target[0, 2], batch.target[0, 5] = 1, 2
    fine, target = label_some_slices(module, batch, module.coarse(batch.image))
    assert sorted(int(labels.unique()) for labels in target) == [1, 2]
    fine.square().sum().backward()
    assert all(p.grad.any() for p in module.net1.parameters())


def test_steps_are_left_out_as_in_the_papers_ablation():
    pool = pool_of(case_of())
    names = [stage.name for stage in stages(SMALL, *pool)]
    presets = get_architecture("two_stage").presets
    for n in (1, 2, 3):
        left = presets[f"paper_without_step_{n}"].left_out
        kept = [stage.name for stage in stages(replace(SMALL, left_out=left), *pool)]
        assert kept == names[: n - 1] + names[n:]


def test_the_center_of_a_subvolume_is_of_every_class_as_often():
    training, pool = pool_of(case_of(), augmentation=0.0, batch_size=300)
    assert pool.counts[2] < 0.2 * pool.counts[0]
    config = replace(SMALL, sizes=(1,))
    batch = sample_subvolumes(config, training, pool, torch.Generator().manual_seed(0))
    assert batch.target.shape == (300, 1, 1, 1)
    assert all(abs(n - 100) < 30 for n in batch.target.flatten().bincount())


def test_subvolumes_vary_in_size_and_are_cubes_in_space():
    training, pool = pool_of(case_of(spacing=(2.0, 1.0, 1.0)))
    config = replace(SMALL, voxel=(2.0, 1.0, 1.0), sizes=(6, 64))
    generator = torch.Generator().manual_seed(0)
    shapes = {sample_subvolumes(config, training, pool, generator).image.shape for _ in range(9)}
    assert shapes == {(1, 1, 3, 6, 6), (1, 1, 9, 20, 17)}


def test_step_1_sees_every_label_of_a_mirrored_volume():
    case = case_of()
    training, pool = pool_of(case, flips=True, gray_value=0.0)
    image = pool.cases[0].standardized[None]
    whole = sample_whole(training, pool, lambda _: image, torch.Generator().manual_seed(1))
    assert not torch.equal(whole.image, image)
    gray = whole.image[(0, 0, *whole.voxels.T)]
    assert len(gray) == sum(pool.counts)
    assert gray[whole.target == 0].max() < gray[whole.target == 1].min()


@pytest.mark.parametrize("shape", [(9, 20, 17), (2, 20, 17)])
def test_stacks_keep_their_labels_and_what_net1_found_stays_in_place(shape):
    case = case_of(shape)
    settings = {"augmentation": 1.0, "flips": True, "gray_value": 0.0, "batch_size": 6}
    training, pool = pool_of(case, elastic_sd_voxels=1.0, **settings)
    found = {pool.cases[0]: pool.cases[0].standardized}
    config = replace(SMALL, neighbors=5)
    batch, logits = sample_stacks(config, training, pool, found, torch.Generator().manual_seed(0))
    assert batch.image.shape == (6, 1, 5, 20, 17)
    assert batch.target.shape == (6, 20, 17)
    torch.testing.assert_close(logits, batch.image, atol=1e-4, rtol=1e-4)
    # Corners leave the volume when it turns; a tilted slice would keep a line of labels.
    assert ((batch.target != IGNORE).float().mean((1, 2)) > 0.7).all()
    middle = batch.image[:, 0, 2]
    assert middle[batch.target == 0].mean() < middle[batch.target == 1].mean() - 1


def test_resuming_in_the_last_step_repeats_an_uninterrupted_training():
    case = case_of()
    options = {"net1_channels": 2, "net2_channels": 2, "blocks": 2, "sizes": (6,), "plane": 12}
    training = TrainingConfig(model="two_stage", steps=12, options=options, device="cpu")
    events = train(case, training)
    next(events)
    while (event := next(events)).stage[0] != "4" or event.step < 9:
        pass
    stopped = events.send(Command.STOP).checkpoint
    one = list(train(case, training))[-1].checkpoint
    other = list(train(case, training, resume=stopped))[-1].checkpoint
    assert stopped.step < 12
    assert all(torch.equal(one.state[k], other.state[k]) for k in one.state)


# Prediction


class Says(nn.Module):
    """In the place of Net1: the foreground is in a box, whatever the image."""

    def __init__(self, box: tuple[slice, slice, slice]) -> None:
        super().__init__()
        self.box = box

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, 3, *image.shape[2:])
        logits[:, 0] = 9.0
        logits[(slice(None), 1, *self.box)] = 18.0
        return logits


def test_net2_labels_the_box_that_net1_found_and_nothing_else():
    config = replace(SMALL, voxel=(1.0, 1.0, 1.0))
    module = opinionated(config)
    module.net1 = Says((slice(3, 6), slice(4, 7), slice(9, 12)))
    block = noise(1, 1, 16, 40, 40)
    whole = tuple(slice(0, n) for n in block.shape[2:])
    coarse = module.coarse(block)[0]
    box = dynamic_tile(config, coarse, block.shape[2:])
    # Two coarse voxels (of two voxels each) wider; in the slices, from multiples of 4.
    assert box == (slice(2, 16), slice(4, 18), slice(12, 28))
    found = probabilities(module, config, block, whole)
    alone = read_region(coarse, whole, block.shape[2:]).softmax(0)
    outside = torch.ones(block.shape[2:], dtype=torch.bool)
    outside[box] = False
    torch.testing.assert_close(found[:, outside], alone[:, outside])
    assert (found[:, ~outside] - alone[:, ~outside]).abs().amax(0).min() > 1e-4
    torch.testing.assert_close(found.sum(0), torch.ones_like(found[0]))


def test_where_net1_finds_nothing_net2_labels_everything():
    coarse = torch.zeros(2, 3, 4, 5)
    coarse[0] = 20.0
    assert dynamic_tile(SMALL, coarse, (6, 8, 10)) == (slice(0, 6), slice(0, 8), slice(0, 10))


@pytest.mark.parametrize("axis", [0, 2])
def test_a_prediction_in_pieces_is_the_network_on_the_whole(axis, monkeypatch):
    """The reach covers what Net2 sees, and what it sees at once changes nothing."""
    voxel = tuple(2.0 if a == axis else 1.0 for a in range(3))
    config = replace(SMALL, voxel=voxel, found_above=0.0, tile=12, coarse_spacing=4.0)
    module = opinionated(config)
    image = noise(1, 1, 13, 61, 3) if axis == 2 else noise(1, 1, 7, 9, 61)
    shape = tuple(image.shape[2:])
    monkeypatch.setattr(two_stage, "VOXELS_AT_ONCE", 2 * 61 * 12 * 3)
    found = torch.zeros(3, *shape)
    tiles = plan_tiles(walk(config, shape), shape)
    assert len(tiles) > 5
    for tile in tiles:
        block = image[(slice(None), slice(None), *tile.read)]
        found[(slice(None), *tile.write)] = probabilities(module, config, block, tile.trim)
    torch.testing.assert_close(found, module(image)[0].softmax(0), atol=1e-5, rtol=1e-4)


def test_a_short_training_labels_the_slices_between_the_painted_ones():
    case = case_of((6, 20, 17))
    training = TrainingConfig(model="two_stage", steps=60, device="cpu", held_out=0.0)
    labels = predict_volume(list(train(case, training))[-1].checkpoint, case.volume, device="cpu")
    assert (labels[1::2] == case.annotation.labels[::2]).mean() > 0.95


# Settings


def test_the_coarse_voxels_are_3_mm_or_follow_from_the_extent():
    configure = get_architecture("two_stage").configure
    paper = TrainingConfig(preset="paper")
    heart = case_of(spacing=(0.6, 0.4, 0.4), unit="millimeter")
    config = configure(paper, [heart], CPU)
    assert (config.voxel, config.coarse_spacing, config.axis) == ((0.6, 0.4, 0.4), 3.0, 0)
    assert config.coarse_shape((100, 300, 30)) == (20, 40, 4)
    cells = case_of(spacing=(0.6, 0.4, 0.4), unit="micrometer")
    assert configure(paper, [cells], CPU).coarse_spacing == 0.4
    few = fit(TwoStageConfig(), [cells], voxels=300)
    assert 100 < np.prod(few.coarse_shape(cells.volume.shape)) <= 300
    assert configure(TrainingConfig(), [heart], CPU).coarse_spacing < 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbors": 4}, "odd number from 3"),
        ({"blocks": 0}, "blocks is 0"),
        ({"dropout": 1.0}, "below 1"),
        ({"left_out": (4,)}, "left_out is"),
        ({"left_out": (1, 2, 3)}, "they train Net1"),
        ({"sizes": ()}, "give one size"),
        ({"coarse_spacing": 0.0}, "must be positive"),
        ({"prior": "all"}, "choose"),
        ({"loss": "focal"}, "choose"),
        ({"schedule": "step"}, "choose"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TwoStageConfig(**settings)
