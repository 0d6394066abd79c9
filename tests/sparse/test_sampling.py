from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.annotation import Annotation, Case, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.sparse.augment import patch_positions
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.places import slice_axes
from napari_volseg.sparse.plan import plan_core
from napari_volseg.sparse.pool import build_pool, to_target
from napari_volseg.sparse.position import with_position, with_region_position
from napari_volseg.sparse.sampling import (
    PatchPlan,
    cut_target,
    read_image,
    read_target,
    sample_batch,
    upright_region,
)
from napari_volseg.sparse.stage import IGNORE

CPU = torch.device("cpu")
PLAIN = TrainingConfig(augmentation=0, flips=False, gray_value=0, held_out=0)


def two_class_case(shape=(20, 30, 40), seed=0) -> Case:
    """The image says which class a voxel is; one slice across each axis is labeled."""
    random = np.random.default_rng(seed)
    truth = (random.random(shape) < 0.3).astype(np.uint8) + 1
    labels = np.zeros(shape, np.uint8)
    labels[7], labels[:, 11], labels[:, :, 23] = truth[7], truth[:, 11], truth[:, :, 23]
    return Case(Volume(truth[None] * 100, (2.0, 1.0, 1.0)), Annotation(labels))


def test_a_batch_shows_the_image_and_its_labels_in_register():
    pool = build_pool([two_class_case()], PLAIN, CPU)
    plan = PatchPlan(shapes=((8, 12, 12),), batch_size=3)
    batch = sample_batch(pool, plan, PLAIN, torch.Generator().manual_seed(1))
    assert batch.image.shape == (3, 1, 8, 12, 12)
    assert batch.target.shape == (3, 8, 12, 12)
    # Bright voxels are class 2 (index 1), dark ones class 1 (index 0).
    labeled = batch.target != IGNORE
    assert torch.equal(batch.target[labeled] == 1, batch.image[:, 0][labeled] > 0)


@given(seed=st.integers(0, 60))
def test_every_patch_holds_a_label_even_when_deformed(seed):
    config = TrainingConfig(augmentation=1, held_out=0)
    pool = build_pool([two_class_case()], config, CPU)
    plan = PatchPlan(shapes=((8, 16, 16),), batch_size=2)
    batch = sample_batch(pool, plan, config, torch.Generator().manual_seed(seed))
    assert (batch.target != IGNORE).flatten(1).any(1).all()
    assert torch.isfinite(batch.image).all()


def test_deformation_moves_image_and_labels_alike():
    """A smooth image whose gray value tells the class, sampled with strong deformation."""
    z, y, x = np.indices((40, 40, 40))
    image = np.sin(z / 6) + np.sin(y / 7) + np.sin(x / 8)
    labels = np.where(image > 0, 2, 1).astype(np.uint8)
    case = Case(Volume(image[None].astype(np.float32), (3.0, 1.0, 1.0)), Annotation(labels))
    config = TrainingConfig(augmentation=1, held_out=0, gray_value=0, rotation_degrees=40)
    pool = build_pool([case], config, CPU)
    (how,) = pool.cases[0].intensity
    generator = torch.Generator().manual_seed(0)
    batch = sample_batch(pool, PatchPlan(((16, 24, 24),), batch_size=4), config, generator)
    gray = torch.sinh(batch.image[:, 0] * how.sd + how.mean) * how.scale + how.center
    clear = (gray.abs() > 0.5) & (batch.target != IGNORE)
    assert clear.sum() > 1000
    assert torch.equal(batch.target[clear] == 1, gray[clear] > 0)


def test_unlabeled_voxels_have_no_target():
    case = two_class_case()
    pool = build_pool([case], PLAIN, CPU)
    whole = PatchPlan(shapes=((20, 30, 40),))
    batch = sample_batch(pool, whole, PLAIN, torch.Generator().manual_seed(0))
    expected = case.annotation.labels.astype(np.int64) - 1
    np.testing.assert_array_equal(batch.target[0].numpy(), expected)


def test_a_volume_smaller_than_the_patch_is_mirrored_and_not_labeled_outside():
    case = two_class_case((9, 30, 40))
    pool = build_pool([case], PLAIN, CPU)
    plan = PatchPlan(shapes=((16, 30, 40),))
    batch = sample_batch(pool, plan, PLAIN, torch.Generator().manual_seed(0))
    inside = (batch.target[0] != IGNORE).any(dim=2).any(dim=1)
    assert inside.sum() == 9
    first = int(inside.nonzero()[0])
    torch.testing.assert_close(batch.image[0, 0, first - 2], batch.image[0, 0, first + 2])


def test_halo_belongs_to_the_image_only():
    pool = build_pool([two_class_case()], PLAIN, CPU)
    plan = PatchPlan(shapes=((4, 6, 6),), halo=(3, 5, 7), border="mirror")
    batch = sample_batch(pool, plan, PLAIN, torch.Generator().manual_seed(0))
    assert batch.image.shape[2:] == (10, 16, 20)
    assert batch.target.shape[1:] == (4, 6, 6)
    inner = batch.image[0, 0, 3:-3, 5:-5, 7:-7]
    labeled = batch.target[0] != IGNORE
    assert torch.equal(batch.target[0][labeled] == 1, inner[labeled] > 0)


def test_patches_lie_flat_on_the_slices_that_were_painted():
    pool = build_pool([two_class_case((40, 40, 40))], PLAIN, CPU)
    shapes = ((4, 16, 16), (16, 4, 16), (16, 16, 4))
    plan = PatchPlan(shapes=shapes, batch_size=2)
    seen = set()
    for seed in range(30):
        batch = sample_batch(pool, plan, PLAIN, torch.Generator().manual_seed(seed))
        shape = tuple(batch.target.shape[1:])
        seen.add(shape)
        # A painted slice runs through the whole patch.
        thin = shape.index(4)
        labeled = (batch.target[0] != IGNORE).movedim(thin, 0).flatten(1)
        assert labeled.all(1).any()
    assert seen == set(shapes)


def test_slice_axis_is_the_one_without_labeled_neighbors():
    target = np.full((9, 9, 9), IGNORE, np.int16)
    target[4] = 0
    target[:, 2] = 1
    positions = np.array([[4, 7, 7], [0, 2, 5], [8, 2, 0]], np.int32)
    assert slice_axes(target != IGNORE, positions).tolist() == [0, 1, 1]


def test_same_generator_same_batch():
    config = TrainingConfig(augmentation=1)
    pool = build_pool([two_class_case()], config, CPU)
    plan = PatchPlan(shapes=((8, 12, 12),), batch_size=2)
    first = sample_batch(pool, plan, config, torch.Generator().manual_seed(5))
    again = sample_batch(pool, plan, config, torch.Generator().manual_seed(5))
    other = sample_batch(pool, plan, config, torch.Generator().manual_seed(6))
    assert torch.equal(first.image, again.image) and torch.equal(first.target, again.target)
    assert not torch.equal(first.image, other.image)


@given(
    seed=st.integers(0, 100), part=st.floats(0.02, 0.6), classes=st.integers(2, 4),
    density=st.floats(0.001, 0.3),
)  # fmt: skip
def test_held_out_voxels_are_labeled_ones_and_no_class_goes_untrained(seed, part, classes, density):
    random = np.random.default_rng(seed)
    labels = random.integers(1, classes + 1, (24, 40, 40)).astype(np.uint8)
    labels[random.random(labels.shape) > density] = 0
    case = Case(Volume(np.zeros((1, 24, 40, 40)), (2.0, 1.0, 1.0)), Annotation(labels))
    pool = build_pool([case], TrainingConfig(held_out=part, seed=seed), CPU)
    target, held = to_target(labels, pool.class_ids), pool.cases[0].held_out
    kept = held != IGNORE
    np.testing.assert_array_equal(held[kept], target[kept])
    painted = set(np.unique(target)) - {IGNORE}
    assert set(np.unique(target[~kept])) - {IGNORE} == painted
    if (target != IGNORE).sum() > 2000:
        assert 0.3 * part < kept.sum() / (target != IGNORE).sum() < 3 * part + 0.1


def test_trained_and_held_out_voxels_are_disjoint_and_make_up_the_annotation():
    case = two_class_case((40, 60, 60))
    pool = build_pool([case], TrainingConfig(held_out=0.2), CPU)
    prepared = pool.cases[0]
    trained, held = prepared.target != IGNORE, prepared.held_out != IGNORE
    assert held.any() and not (trained & held).any()
    np.testing.assert_array_equal(trained | held, case.annotation.labels > 0)
    assert pool.counts == tuple(int((prepared.target == k).sum()) for k in range(2))


def test_classes_keep_their_ids_when_numbers_are_missing():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2, :3], labels[2, 3:] = 1, 7
    classes = (LabelClass(1, "background", "#000000"), LabelClass(7, "tube", "#ff0000"))
    case = Case(Volume(np.zeros((1, 6, 6, 6), np.uint8)), Annotation(labels, classes))
    pool = build_pool([case], PLAIN, CPU)
    assert pool.class_ids == (1, 7)
    assert (pool.cases[0].target[2, 4] == 1).all()


def blank(labels: np.ndarray, channels: int = 1, name: str = "brain") -> Case:
    return Case(
        Volume(np.zeros((channels, *labels.shape), np.uint8), name=name), Annotation(labels)
    )


def test_nothing_to_learn_is_refused_in_words():
    empty = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(InputError, match="brain: nothing is painted; paint at least two classes"):
        build_pool([blank(empty)], PLAIN, CPU)
    with pytest.raises(InputError, match="only class 1 is painted"):
        build_pool([blank(empty + 1)], PLAIN, CPU)
    with pytest.raises(InputError, match="nothing to train on"):
        build_pool([], PLAIN, CPU)


def test_differing_channels_and_wrong_weights_are_refused():
    labels = np.ones((4, 4, 4), np.uint8)
    labels[2] = 2
    with pytest.raises(InputError, match="a has 1, b has 2"):
        build_pool([blank(labels, 1, "a"), blank(labels, 2, "b")], PLAIN, CPU)
    with pytest.raises(InputError, match="3 class weights for the 2 classes"):
        build_pool([blank(labels)], TrainingConfig(class_weights=(1, 1, 1)), CPU)


def test_a_large_volume_is_read_patch_by_patch(monkeypatch):
    case = two_class_case()
    kept = build_pool([case], PLAIN, CPU)
    monkeypatch.setattr("napari_volseg.sparse.pool.CACHE_BYTES", 0)
    lazy = build_pool([case], PLAIN, CPU)
    assert lazy.cases[0].standardized is None
    plan = PatchPlan(shapes=((8, 12, 12),), batch_size=2)
    config = TrainingConfig(augmentation=0.5)
    one = sample_batch(kept, plan, config, torch.Generator().manual_seed(2))
    two = sample_batch(lazy, plan, config, torch.Generator().manual_seed(2))
    torch.testing.assert_close(one.image, two.image)
    assert torch.equal(one.target, two.target)


@pytest.mark.parametrize("corner", [(1, 5, 6), (-3, -4, 30), (-20, 2, 35)])
def test_cutting_out_reads_what_interpolation_reads_without_deformation(corner):
    """Outside of the volume too; image, position and labels."""
    pool = build_pool([two_class_case((9, 30, 40))], PLAIN, CPU)
    (case,), shape = pool.cases, (12, 16, 20)
    center = torch.tensor([c + (n - 1) / 2 for c, n in zip(corner, shape, strict=True)])
    positions, region = patch_positions(shape, center), upright_region(center, shape)
    image = with_position(read_image(case, positions, CPU), positions, case.volume.shape)
    cut = with_region_position(case.read(region), region, case.volume.shape)
    torch.testing.assert_close(cut, image, atol=1e-4, rtol=0)
    assert torch.equal(cut_target(case, region), read_target(case, positions))


def test_tiles_are_equal_parts_of_a_volume_and_use_what_a_short_axis_leaves():
    assert plan_core((100, 116, 116), (64, 244, 248), (4, 8, 8)) == (64, 128, 128)
    assert plan_core((112, 112, 112), (1000, 1000, 1000), (8, 8, 8)) == (128, 128, 128)
    assert plan_core((112, 112, 112), (256, 256, 256), (8, 8, 8)) == (128, 128, 128)
    assert plan_core((8, 8, 8), (3, 5, 7), (2, 2, 2)) == (4, 6, 8)
