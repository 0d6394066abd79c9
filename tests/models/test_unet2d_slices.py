from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import class_opinions, plan_tiles
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet2d_slices import SlicesConfig, auto, build, probabilities, stages
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.loop import train

CPU = torch.device("cpu")
PADDED = {"padding": "same", "test_statistics": "running"}


def painted(*axes: int, shape=(24, 30, 36)) -> Case:
    """Eight blobs in noiseless gray, one painted slice across each of the axes."""
    z, y, x = np.indices(shape)
    truth = (1 + (z // 4 + y // 5 + x // 6) % 2).astype(np.uint8)
    labels = np.zeros(shape, np.uint8)
    for axis in axes:
        middle = [slice(None)] * 3
        middle[axis] = shape[axis] // 2
        labels[tuple(middle)] = truth[tuple(middle)]
    return Case(Volume(truth[None].astype(np.float32), (1.0, 1.0, 1.0)), Annotation(labels))


def network(config: SlicesConfig, classes: int = 3) -> nn.Module:
    """A network with an opinion: a fresh one starts without."""
    torch.manual_seed(0)
    module = build(config, 1, classes).eval()
    nn.init.normal_(module.classify.weight)
    return module


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))


def test_the_parameters_are_figure_2s_with_2d_kernels():
    convolutions = [
        (3, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
        (768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64),
    ]  # fmt: skip
    count = sum(9 * a * b + b for a, b in convolutions) + 64 * 3 + 3
    count += sum(4 * n * n for n in (512, 256, 128))
    assert get_architecture("unet2d_slices").paper_parameters() == count == 6_817_091


@pytest.mark.parametrize("orientation", ["z", "mean"])
def test_a_voxel_is_predicted_by_the_slices_through_it(orientation):
    config = SlicesConfig(channels=2, levels=2, orientation=orientation, **PADDED)
    module = network(config)
    image = noise(18, 7, 9)
    found = probabilities(module, config, image, tuple(slice(0, n) for n in image.shape[2:]))
    by_axis = []
    for axis in range(3) if orientation == "mean" else (0,):
        slices = [
            module(image.select(axis + 2, n)[:, :, None])[0, :, 0].softmax(0)
            for n in range(image.shape[axis + 2])
        ]
        by_axis.append(torch.stack(slices, axis + 1))
    torch.testing.assert_close(found, torch.stack(by_axis).mean(0))


@pytest.mark.parametrize("settings", [{}, PADDED], ids=["paper", "padded"])
def test_a_slice_is_an_image_of_its_own(settings):
    """Also where batch normalization takes the current statistics."""
    config = SlicesConfig(channels=2, levels=2, orientation="z", **settings)
    module = network(config)
    one = noise(5, 40, 40)
    other = one.clone()
    other[:, :, [0, 1, 3, 4]] = 7.0
    core = (slice(0, 5), slice(10, 30), slice(10, 30))
    torch.testing.assert_close(
        probabilities(module, config, one, core)[:, 2],
        probabilities(module, config, other, core)[:, 2],
    )


@pytest.mark.parametrize("orientation", ["z", "mean"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_tiled_prediction_equals_a_whole_one(padding, orientation):
    architecture = get_architecture("unet2d_slices")
    case = painted(0, shape=(21, 43, 38))
    pool = build_pool([case], TrainingConfig(), CPU)
    found = []
    for tile in ((8, 12, 16), (64, 64, 64)):
        config = SlicesConfig(
            channels=2, levels=2, padding=padding, test_statistics="running", tile=tile,
            orientation=orientation,
        )  # fmt: skip
        volume = np.zeros((3, *case.volume.shape), np.float32)
        tiles = plan_tiles(architecture.walk(config, case.volume.shape), case.volume.shape)
        regions = class_opinions(
            network(config), config, architecture, case.volume, pool.cases[0].intensity, CPU, tiles
        )
        for region, values, _, _ in regions:
            volume[(slice(None), *region)] = values[0].numpy()
        found.append(volume)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_patches_are_painted_slices_turned_to_the_front(axis, padding):
    case = painted(axis)
    training = TrainingConfig(augmentation=0, gray_value=0, held_out=0)
    pool = build_pool([case], training, CPU)
    config = SlicesConfig(
        channels=2, levels=2, patch=(8, 12, 16), padding=padding, test_statistics="running",
        batch_size=2,
    )  # fmt: skip
    (stage,) = stages(config, training, pool)
    batch = stage.sample(torch.Generator().manual_seed(0))
    sides = [config.side(n) for a, n in enumerate((8, 12, 16)) if a != axis]
    assert batch.target.shape == (2, 1, *sides)
    assert (batch.target != IGNORE).float().mean() > 0.6
    margin = (batch.image.shape[3] - sides[0]) // 2
    assert margin == (config.network.margin[2] if padding == "valid" else 0)
    inner = batch.image[:, 0, :, margin : margin + sides[0], margin : margin + sides[1]]
    # Gray values are the truth's: bright is class 1.
    labeled = batch.target != IGNORE
    assert torch.equal((inner > 0).long()[labeled], batch.target[labeled])
    assert stage.loss(network(config, 2), batch, 0).isfinite()


def test_a_deformed_slice_keeps_its_labels():
    case = painted(1, shape=(64, 5, 64))
    training = TrainingConfig(augmentation=1, held_out=0)
    pool = build_pool([case], training, CPU)
    (stage,) = stages(
        SlicesConfig(channels=2, levels=2, patch=(32, 32, 32), **PADDED), training, pool
    )
    labeled = [
        (stage.sample(torch.Generator().manual_seed(s)).target != IGNORE).float().mean()
        for s in range(8)
    ]
    assert torch.stack(labeled).mean() > 0.8


def test_every_orientation_that_was_painted_is_drawn_and_no_slice_across_it():
    training = TrainingConfig(augmentation=0, held_out=0)
    pool = build_pool([painted(0, 2)], training, CPU)
    config = SlicesConfig(channels=2, levels=2, patch=(8, 12, 16), **PADDED)
    (stage,) = stages(config, training, pool)
    batches = [stage.sample(torch.Generator().manual_seed(s)) for s in range(30)]
    assert {tuple(batch.image.shape[3:]) for batch in batches} == {(12, 16), (8, 12)}
    assert all((batch.target != IGNORE).all() for batch in batches)


def test_the_papers_training_runs():
    config = TrainingConfig(
        model="unet2d_slices", preset="paper", steps=3, optimizer="sgd", device="cpu",
        options={"channels": 2, "levels": 2},
    )  # fmt: skip
    events = list(train(painted(0, 1, 2), config))
    losses = [event.loss for event in events if event.loss is not None]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_patches_of_all_orientations_span_the_same_space():
    volume = Volume(np.zeros((1, 50, 300, 40), np.float32), (4.0, 1.0, 1.0))
    labels = np.zeros((50, 300, 40), np.uint8)
    config = auto([Case(volume, Annotation(labels))], CPU, TrainingConfig())
    assert config.patch == (32, 128, 40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "both begin at 1"),
        ({"batch_size": 0}, "both begin at 1"),
        ({"patch": (0, 4, 4)}, "every side begins at 1"),
        ({"orientation": "x"}, "choose mean or z"),
        ({"channels": 3}, "even number"),
    ],
)
def test_settings_that_build_no_network_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SlicesConfig(**settings)
