from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet3d_deep import DeepConfig, build, coarse_target, probabilities, stages
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.config_help import field_help
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.stage import IGNORE

CONFIG = DeepConfig(
    channels=2,
    blocks=(1, 1, 1, 1),
    strides=((1, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    patch=(8, 16, 16),
)


def striped() -> Case:
    _, y, _ = np.indices((8, 18, 20))
    truth = (1 + y // 9).astype(np.uint8)
    labels = np.zeros(truth.shape, np.uint8)
    labels[3] = truth[3]
    return Case(Volume(truth[None] * np.float32(10)), Annotation(labels))


def test_the_papers_network_has_what_the_implicit_one_saves():
    """The paper: the Implicit U-Net "has 40% less parameters than the equivalent U-Net"."""
    deep = get_architecture("unet3d_deep")
    assert deep.paper_parameters() == 16_546_598
    saved = 1 - get_architecture("implicit_unet").paper_parameters() / deep.paper_parameters()
    assert saved == pytest.approx(0.40, abs=0.01)


def test_with_the_implicit_networks_encoder_it_is_hardly_larger():
    deep = get_architecture("unet3d_deep")
    assert deep.count(build(deep.presets["same_encoder"], 1, 2)) == 10_028_452


# An image within one voxel of the last block could not be normalized.
@given(size=st.tuples(st.integers(1, 13), st.integers(1, 19), st.integers(9, 19)))
def test_any_size_gives_its_own_size(size):
    assert build(CONFIG, 2, 3)(torch.zeros(1, 2, *size)).shape == (1, 3, *size)


def test_every_resolution_but_the_two_lowest_is_supervised():
    logits = build(CONFIG, 1, 3).supervised_logits(torch.randn(2, 1, 8, 16, 16))
    assert [tuple(part.shape) for part in logits] == [(2, 3, 8, 16, 16), (2, 3, 8, 8, 8)]


def test_a_coarse_voxel_has_the_class_of_most_of_its_labeled_voxels():
    target = torch.full((1, 2, 2, 6), IGNORE)
    target[0, 0, 0] = torch.tensor([0, IGNORE, 1, 1, IGNORE, IGNORE])
    target[0, 1, 1] = torch.tensor([2, 2, 0, IGNORE, IGNORE, IGNORE])
    assert coarse_target(target, (2, 2, 2), 3).flatten().tolist() == [2, 1, IGNORE]
    assert coarse_target(target, (1, 1, 1), 3) is target


def test_the_loss_of_each_resolution_weighs_half_of_the_finer_ones():
    training = TrainingConfig()
    pool = build_pool([striped()], training, torch.device("cpu"))
    (stage,) = stages(CONFIG, training, pool)
    score = labeled_loss(training, pool)
    module = build(CONFIG, 1, 2)
    batch = stage.sample(torch.Generator().manual_seed(0))
    fine, coarse = module.supervised_logits(batch.image)
    expected = (
        2 * score(fine, batch.target) + score(coarse, coarse_target(batch.target, (1, 2, 2), 2))
    ) / 3
    torch.testing.assert_close(stage.loss(module, batch, 0), expected)


def test_windows_are_blended_without_smoothing():
    module = build(CONFIG, 1, 2).eval()
    image = torch.randn(1, 1, 8, 16, 16)
    core = (slice(2, 5), slice(0, 16), slice(1, 3))
    expected = torch.softmax(module(image)[0], 0)[(slice(None), *core)]
    torch.testing.assert_close(probabilities(module, CONFIG, image, core), expected)


def test_help_has_the_fields_that_both_networks_share():
    texts = field_help(DeepConfig)
    assert texts["patch"].startswith("Voxels (z, y, x) of a training patch")
    assert texts["blocks"] == "Convolutions of each block of the encoder."
