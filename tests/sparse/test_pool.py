from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool

SHAPE = (10, 12, 14)


def whole_slices() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4], labels[:, 7] = 1, 2
    return labels


def strokes() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 3:6, 2:9], labels[8, 1:4, 5:12] = 1, 2
    return labels


def both() -> np.ndarray:
    return np.maximum(whole_slices(), strokes())


@pytest.mark.parametrize("held_out", [0, 0.3])
@pytest.mark.parametrize(
    ("painted", "expected"),
    [((whole_slices,), 0), ((strokes,), 1), ((whole_slices, strokes), None)],
)
def test_paint_off_whole_slices_is_strokes_whatever_is_held_out(painted, expected, held_out):
    labels = [paint() for paint in painted]
    volumes = [Volume(np.random.default_rng(0).random((1, *SHAPE)), (1.0, 1.0, 1.0))] * len(labels)
    cases = [Case(v, Annotation(found)) for v, found in zip(volumes, labels, strict=True)]
    pool = build_pool(cases, TrainingConfig(held_out=held_out), torch.device("cpu"))
    if expected is None:
        expected = np.count_nonzero(labels[1]) / np.count_nonzero(labels)
    assert pool.strokes == pytest.approx(expected)


def test_strokes_beside_whole_slices_of_the_same_volume_count_too():
    case = Case(Volume(np.ones((1, *SHAPE)), (1.0, 1.0, 1.0)), Annotation(both()))
    pool = build_pool([case], TrainingConfig(), torch.device("cpu"))
    assert 0 < pool.strokes < 0.3
