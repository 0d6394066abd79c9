"""Position channels: where a voxel lies in its volume, the same in training and prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import predict_volume
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.position import with_position, with_region_position
from napari_volseg.sparse.sampling import PatchPlan, sample_batch
from napari_volseg.training.loop import train


def test_positions_span_the_volume_with_unit_standard_deviation():
    image = torch.zeros(2, 1, 9, 201, 1)
    found = with_region_position(image, (slice(0, 9), slice(0, 201), slice(0, 1)), (9, 201, 1))
    assert found.shape == (2, 4, 9, 201, 1)
    z, y, x = found[0, 1:]
    assert z[0, 0, 0] == -z[-1, 0, 0] == pytest.approx(-math.sqrt(3))
    assert float(y.std()) == pytest.approx(1, abs=0.02)
    assert not x.any(), "an axis of one voxel has one place"


def test_a_region_is_where_it_is_in_the_whole():
    whole = with_region_position(
        torch.zeros(1, 12, 10, 8), (slice(0, 12), slice(0, 10), slice(0, 8)), (12, 10, 8)
    )
    region = (slice(3, 9), slice(0, 4), slice(5, 8))
    part = with_region_position(torch.zeros(1, 6, 4, 3), region, (12, 10, 8))
    torch.testing.assert_close(part, whole[(slice(None), *region)])


def test_patches_carry_the_position_they_were_read_from():
    """An image that is its own z position stays equal to its position channel, deformed or not."""
    z = np.indices((30, 40, 40))[0].astype(np.float32)
    labels = np.where(z > 14, 2, 1).astype(np.uint8)
    config = TrainingConfig(augmentation=1, held_out=0, gray_value=0, flips=True)
    pool = build_pool([Case(Volume(z[None], (2.0, 1.0, 1.0)), Annotation(labels))], config, "cpu")
    plan = PatchPlan(shapes=((6, 12, 12),), batch_size=4, border="clip", position=True)
    batch = sample_batch(pool, plan, config, torch.Generator().manual_seed(0))
    assert batch.image.shape[1] == 4
    (how,) = pool.cases[0].intensity
    gray = torch.sinh(batch.image[:, 0] * how.sd + how.mean) * how.scale + how.center
    place = (batch.image[:, 1] / math.sqrt(3) + 1) / 2 * 29
    # Read at a border, positions go on beyond the volume; the gray values are mirrored.
    inside = (place > 0) & (place < 29)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(gray[inside], place[inside], atol=0.02, rtol=0)


def test_what_only_place_tells_apart_is_learned():
    """Noise everywhere; class 2 is the far half. Without position nothing could be right."""
    random = np.random.default_rng(0)
    truth = np.ones((16, 24, 24), np.uint8)
    truth[:, :, 12:] = 2
    labels = np.zeros_like(truth)
    labels[4], labels[11] = truth[4], truth[11]
    volume = Volume(random.normal(size=(1, *truth.shape)).astype(np.float32))
    scores = {}
    for position in (True, False):
        options = {
            "position": position, "channels": 4, "filter_scales": (1.0,), "learned_filters": False
        }  # fmt: skip
        config = TrainingConfig(steps=50, options=options, device="cpu", held_out=0)
        *_, last = train(Case(volume, Annotation(labels)), config)
        scores[position] = float((predict_volume(last.checkpoint, volume) == truth).mean())
    assert scores[True] > 0.95
    assert scores[False] < scores[True]


def test_with_position_keeps_the_image():
    image = torch.randn(3, 2, 4, 5, 6)
    positions = torch.zeros(4, 5, 6, 3)
    assert torch.equal(with_position(image, positions, (4, 5, 6))[:, :2], image)
