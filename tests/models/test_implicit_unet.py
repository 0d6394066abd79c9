from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.models.implicit_unet import (
    ImplicitConfig,
    build,
    encoded_positions,
    gather,
    near_boundary,
    probabilities,
    stages,
    window_probabilities,
)
from napari_volseg.models.registry import get_architecture
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.loop import train

SHAPE = (16, 34, 37)
SMALL = {
    "channels": 4,
    "blocks": (1, 1),
    "strides": ((2, 2, 2),),
    "kernels": ((3, 3, 3), (3, 3, 3)),
    "patch": (16, 16, 16),
}
CONFIG = ImplicitConfig(**SMALL, hidden=16, layers=3)


def truth() -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return np.where((z - 8) ** 2 + (y - 17) ** 2 + (x - 20) ** 2 < 49, 2, 1).astype(np.uint8)


def blob() -> Case:
    """A bright ball, painted on five slices."""
    labels = np.zeros(SHAPE, np.uint8)
    for z in (5, 8, 11):
        labels[z] = truth()[z]
    labels[:, 17], labels[:, :, 20] = truth()[:, 17], truth()[:, :, 20]
    image = truth() * 50 + np.random.default_rng(0).normal(0, 5, SHAPE)
    return Case(Volume(image[None].astype(np.float32)), Annotation(labels))


def noise(*shape: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0))


def test_the_papers_network():
    """540 features of a point (480 of the image, 60 of its position), 512 units, 8 layers."""
    encoder = sum(
        27 * before * after + after + 2 * after
        for width, before_block, count in ((32, 1, 2), (64, 32, 2), (128, 64, 4), (256, 128, 4))
        for before, after in [(before_block, width), *[(width, width)] * (count - 1)]
    )
    # A layer with weight normalization has a length beside each row and bias.
    decoder = (540 + 2) * 512 + 6 * (512 + 2) * 512 + (512 + 2) * 2
    assert get_architecture("implicit_unet").paper_parameters() == encoder + decoder == 9_798_564


def test_a_point_gathers_the_voxel_that_holds_it_at_each_resolution():
    """Figure 1: (8, 16) reads (4, 8) at half the resolution, (2, 4) at a quarter."""
    for scale in ((1, 1, 1), (1, 2, 2), (2, 4, 4)):
        shape = [-(-n // s) for n, s in zip((5, 19, 21), scale, strict=True)]
        z, y, x = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
        maps = torch.stack([torch.stack([z, y, x]), torch.stack([z, y, x]) + 100])
        points = torch.tensor([[[3, 8, 16], [4, 18, 20]], [[0, 0, 0], [2, 17, 1]]])
        expected = points // torch.tensor(scale) + torch.tensor([0, 100])[:, None, None]
        assert torch.equal(gather(maps, points, scale), expected.float())


def test_positions_are_encoded_as_in_nerf():
    codes = encoded_positions(4, 10, torch.device("cpu"))
    assert codes.shape == (4, 20)
    for voxel, p in enumerate((-0.75, -0.25, 0.25, 0.75)):
        angles = [2**frequency * math.pi * p for frequency in range(10)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert codes[voxel].tolist() == pytest.approx(expected, abs=1e-3)


def test_the_whole_image_is_decoded_as_its_points_are():
    module = build(CONFIG, 2, 3).eval()
    image = noise(5, 7, 9, channels=2)
    points = torch.tensor([[0, 0, 0], [4, 6, 8], [1, 5, 2]])
    dense = module(image)
    assert dense.shape == (1, 3, 5, 7, 9)
    sparse = module.decode(module.encoder(image), points[None], (5, 7, 9))
    torch.testing.assert_close(sparse[0], dense[(0, slice(None), *points.T)])


def test_a_point_knows_where_in_the_patch_it_is():
    module = build(CONFIG, 1, 2).eval()
    logits = module(torch.zeros(1, 1, 16, 16, 16))[0, 0, 8]
    assert logits.std() > 1e-3


def test_the_paper_trains_as_in_section_3():
    paper = get_architecture("implicit_unet").presets["paper"]
    config = replace(paper, **SMALL)
    training = TrainingConfig(model="implicit_unet", device="cpu")
    pool = build_pool([blob()], training, torch.device("cpu"))
    (stage,) = stages(config, training, pool)
    batch = stage.sample(torch.Generator().manual_seed(0))
    assert batch.image.shape == (6, 1, 16, 16, 16)
    assert batch.points.shape == (6, 30_000, 3)
    assert (batch.target != IGNORE).all()
    module = build(config, 1, 2)
    optimizer = stage.optimizer(stage.parameters(module))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == 1e-4
    assert {stage.schedule(f, []) for f in (0, 0.5, 0.99)} == {1.0}
    assert (paper.near_boundary, paper.distance, paper.patch) == (0.5, (5, 5, 5), (96, 160, 160))


def test_what_the_user_asks_for_goes_before_the_architectures_own():
    training = TrainingConfig(batch_size=1, learning_rate=0.5, optimizer="sgd")
    pool = build_pool([blob()], training, torch.device("cpu"))
    (stage,) = stages(replace(CONFIG, schedule="cosine"), training, pool)
    assert len(stage.sample(torch.Generator().manual_seed(0)).image) == 1
    optimizer = stage.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("part", [0.1, ImplicitConfig().positive, 0.8])
def test_the_asked_part_of_the_patches_is_drawn_around_the_foreground(part):
    pool = build_pool([blob()], TrainingConfig(), torch.device("cpu"))
    config = replace(CONFIG, strides=((1, 1, 1),), patch=(2, 2, 2), points=8, batch_size=300)
    (stage,) = stages(replace(config, positive=part), TrainingConfig(augmentation=0), pool)
    target = stage.sample(torch.Generator().manual_seed(0)).target
    # The patches are so small that those drawn around the background rarely show the ball.
    assert (target == 1).any(1).float().mean() == pytest.approx(part, abs=0.08)


def test_three_stages_agree_with_every_voxel_and_decode_few_of_them():
    """Of a network that has learned where the ball ends; one that is unsure sees specks."""
    case = blob()
    options = SMALL | {"hidden": 32, "layers": 4, "points": 800, "batch_size": 2}
    options |= {"learning_rate": 5e-3, "schedule": "cosine"}
    training = TrainingConfig(
        model="implicit_unet", preset="paper", options=options, steps=120, augmentation=0
    )
    module, config = list(train(case, training))[-1].checkpoint.module()
    image = build_pool([case], training, torch.device("cpu")).cases[0].standardized[None]
    decoded = []
    decode_all = module.decode_all
    module.decode_all = lambda maps, points, shape: (
        decoded.append(len(points)) or decode_all(maps, points, shape)
    )
    unseen = case.annotation.labels == 0
    dice, points = [], []
    for mesh in ((1, 1, 1), (4, 4, 4)):
        decoded.clear()
        with torch.inference_mode():
            found = probabilities(
                module, replace(config, mesh=mesh), image, tuple(slice(0, n) for n in SHAPE)
            )
        mask = (found.argmax(0).numpy() == 1) & unseen
        ball = (truth() == 2) & unseen
        dice.append(2 * (mask & ball).sum() / (mask.sum() + ball.sum()))
        points.append(sum(decoded))
    assert min(dice) > 0.8
    assert abs(dice[0] - dice[1]) <= 0.002
    assert points[1] < 0.7 * points[0]


def test_voxels_near_a_broad_boundary_are_decoded_themselves_and_no_others():
    """A network that sees a step in x only: its broad mesh disagrees there."""
    config = replace(CONFIG, mesh=(4, 4, 4))
    module = build(config, 1, 2).eval()
    at = 9

    def step(maps, points, shape):
        logits = torch.zeros(1, 2, len(points))
        logits[0, 1] = torch.where(points[:, 2] >= at, 5.0, -5.0) + points[:, 2] / 100
        return logits

    module.decode_all = step
    found = window_probabilities(module, config, noise(16, 16, 16))
    x = torch.arange(16)
    expected = torch.where(x >= at, 5.0, -5.0) + x / 100
    # Cells begin at 0, 4, 8 and 12; the middles 2, 6, 10, 14 disagree between 6 and 10, so
    # the cells from 4 to 11 are decoded and the others have their middle's value.
    expected[:4], expected[12:] = -5 + 0.02, 5 + 0.14
    torch.testing.assert_close(found[1], expected.sigmoid().expand(16, 16, 16))


def test_cells_whose_neighbors_differ_are_near_a_boundary():
    broad = torch.zeros(2, 5, 5, 5)
    broad[1, 2, 2, 2] = 1
    expected = torch.zeros(5, 5, 5, dtype=torch.bool)
    expected[1:4, 1:4, 1:4] = True
    assert torch.equal(near_boundary(broad), expected)


def test_coarse_axes_get_a_finer_mesh_and_shorter_displacements():
    volume = Volume(np.zeros((1, 12, 64, 64), np.float32), (4.0, 1.0, 1.0))
    case = Case(volume, Annotation(np.ones((12, 64, 64), np.uint8)))
    config = get_architecture("implicit_unet").auto([case], torch.device("cpu"), TrainingConfig())
    assert config.mesh == (1, 4, 4)
    assert config.distance == (1.25, 5, 5)
    assert config.strides[0] == (1, 2, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "hidden is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"near_boundary": 1.5}, "near_boundary is 1.5"),
        ({"distance": (1, -1, 1)}, "cannot be negative"),
        ({"mesh": (0, 4, 4)}, r"mesh \(0, 4, 4\)"),
        ({"patch": (15, 16, 16)}, r"patch \(15, 16, 16\) must be a multiple of \(2, 2, 2\)"),
        ({"patch": (2, 2, 2)}, "one voxel of the last block"),
        ({"blocks": (1, 1, 1)}, "3 blocks, 2 kernels and 1 strides"),
        ({"kernels": ((3, 3, 3), (2, 3, 3))}, "must be odd"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"positive": 2.0}, "positive is 2.0"),
        ({"schedule": "step"}, "choose constant or cosine"),
    ],
)
def test_settings_that_build_nothing_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **settings)
