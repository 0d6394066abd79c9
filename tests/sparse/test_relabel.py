"""Labels that change under a training: what is trained on, and what is held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.annotation import Annotation, Case, default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import Pool, build_pool
from napari_volseg.sparse.relabel import relabel, with_classes
from napari_volseg.sparse.stage import IGNORE

SHAPE = (14, 40, 52)
CONFIG = TrainingConfig(held_out=0.3)
CPU = torch.device("cpu")


def pool_of(labels: np.ndarray, uses=()) -> Pool:
    volume = Volume(np.zeros((1, *SHAPE), np.uint8), (2.0, 1.0, 1.0))
    case = Case(volume, Annotation(labels, default_classes((1, 2, 3))))
    return build_pool([case], CONFIG, CPU, uses)


def painted(random: np.random.Generator) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4] = random.integers(1, 4, SHAPE[1:])
    labels[:, 20, :30] = 2
    return labels


def paint(labels: np.ndarray, random: np.random.Generator, strokes: int) -> list:
    """Paint, erase and paint over in boxes; return them."""
    regions = []
    for _ in range(strokes):
        low = [int(random.integers(n)) for n in SHAPE]
        sides = [int(random.integers(1, 12)) for _ in SHAPE]
        box = tuple(slice(a, min(n, a + s)) for a, s, n in zip(low, sides, SHAPE, strict=True))
        labels[box] = random.integers(4)
        regions.append(box)
    return regions


def same(one: Pool, two: Pool) -> bool:
    def arrays(pool):
        case = pool.cases[0]
        blocks = (case.blocks.counts, case.blocks.use)
        return (case.target, case.held_out, *case.voxels, *case.axes, *blocks)

    pairs = zip(arrays(one), arrays(two), strict=True)
    return one.counts == two.counts and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs
    )


def test_a_class_that_comes_makes_the_pool_that_all_of_the_labels_make():
    now = painted(np.random.default_rng(0))
    before = np.where(now == 2, 0, now).astype(np.uint8)
    case = Case(pool_of(now).cases[0].volume, Annotation(before, default_classes((1, 3))))
    few = build_pool([case], CONFIG, CPU)
    many = change(with_classes(few, {2}), now, [tuple(slice(0, n) for n in SHAPE)])
    assert many.class_ids == (1, 2, 3) and same(many, pool_of(now, [many.cases[0].blocks.use]))
    assert with_classes(many, {1, 3}) is many


def change(pool: Pool, labels: np.ndarray, regions: list, seed: int = 0) -> Pool:
    return relabel(pool, labels, regions, CONFIG.held_out, np.random.default_rng(seed))


@given(seed=st.integers(0, 200))
def test_it_is_the_pool_that_all_of_the_labels_make(seed):
    random = np.random.default_rng(seed)
    labels = painted(random)
    pool = pool_of(labels)
    for _ in range(3):
        pool = change(pool, labels, paint(labels, random, strokes=2), seed)
    assert same(pool, pool_of(labels, [pool.cases[0].blocks.use]))


@given(seed=st.integers(0, 200))
def test_held_out_stays_held_out_and_trained_stays_trained(seed):
    random = np.random.default_rng(seed)
    labels = painted(random)
    pool = pool_of(labels)
    trained = pool.cases[0].target != IGNORE
    held = pool.cases[0].held_out != IGNORE
    for _ in range(4):
        pool = change(pool, labels, paint(labels, random, strokes=3), seed)
        case = pool.cases[0]
        assert not ((case.target != IGNORE) & held).any()
        assert not ((case.held_out != IGNORE) & trained).any()
        trained |= case.target != IGNORE
        held |= case.held_out != IGNORE


def test_of_new_paint_about_that_part_is_held_out():
    labels = np.zeros(SHAPE, np.uint8)
    labels[4, :3], labels[4, 3:6] = 1, 2
    pool = pool_of(labels)
    labels[10] = 2
    pool = change(pool, labels, [(slice(10, 11), slice(0, SHAPE[1]), slice(0, SHAPE[2]))])
    held = (pool.cases[0].held_out[10] != IGNORE).mean()
    assert 0.1 < held < 0.5


def test_no_change_changes_nothing():
    labels = painted(np.random.default_rng(0))
    everywhere = tuple(slice(0, n) for n in SHAPE)
    assert same(change(pool_of(labels), labels, [everywhere]), pool_of(labels))


def test_what_leaves_less_than_two_classes_is_refused_and_leaves_all_as_it_was():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2], labels[9] = 1, 2
    pool = pool_of(labels)
    without = labels.copy()
    without[9] = 0
    region = (slice(9, 10), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    with pytest.raises(InputError, match="fewer than two classes are left"):
        change(pool, without, [region])
    assert same(pool, pool_of(labels))
