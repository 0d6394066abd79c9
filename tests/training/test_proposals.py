"""Training on proposed labels beside the paint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.registry import architectures
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training.events import NewLabels
from napari_volseg.training.loop import train
from tests.models.test_registry import odd_case
from tests.training.test_loop import CONFIG, SHAPE, last, make_case, same_weights


def proposed(case: Case, truth: int = 2) -> Case:
    """Propose one class for all of a volume."""
    return replace(case, proposals=np.full(case.volume.shape, truth, np.uint8))


def test_with_weight_0_training_is_bit_for_bit_as_without():
    config = replace(CONFIG, proposal_weight=0.0)
    without, with_them = (
        [e.checkpoint for e in train(case, config)][-1]
        for case in (make_case(), proposed(make_case()))
    )
    assert same_weights(without.weights, with_them.weights)
    assert without.score == with_them.score
    assert without.progress["fingerprint"] == with_them.progress["fingerprint"]
    weighed = last(train(proposed(make_case()), CONFIG)).checkpoint
    assert not same_weights(without.weights, weighed.weights)


def test_what_is_proposed_is_learned():
    """Only proposals tell that bright voxels are class 2 in the half that nobody painted."""
    shape = (12, 24, 48)
    random = np.random.default_rng(0)
    truth = np.where(random.random((3, 6, 12)) < 0.4, 2, 1).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    truth = truth.astype(np.uint8)
    right = np.zeros(shape, bool)
    right[..., 24:] = True
    # There, it is the dark voxels.
    bright = (truth == 2) != right
    image = bright * 60 + random.normal(100, 5, shape)
    labels = np.where(right, 0, truth)
    labels[1::2] = 0
    case = Case(Volume(image[None].astype(np.float32), name="halves"), Annotation(labels))
    config = TrainingConfig(steps=150, device="cpu", options=CONFIG.options, held_out=0.0)

    def part_right(case: Case) -> float:
        found = predict_volume(last(train(case, config)).checkpoint, case.volume, device="cpu")
        return float((found == truth)[right].mean())

    assert part_right(case) < 0.6
    assert part_right(replace(case, proposals=np.where(right, truth, 0).astype(np.uint8))) > 0.8


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_trains_on_them(name):
    case = odd_case()
    events = list(train(proposed(case), TrainingConfig(model=name, device="cpu", steps=2)))
    assert np.isfinite([e.loss for e in events if e.loss is not None]).all()


def test_new_paint_is_taken_up_beside_proposals():
    case = proposed(make_case())
    running = train(case, CONFIG)
    for event in running:
        if event.loss is not None:
            break
    labels = case.annotation.labels.copy()
    labels[8] = 1
    whole = tuple(slice(0, n) for n in SHAPE)
    events = [running.send(NewLabels(((whole, labels),))), *running]
    assert any(e.labels is not None for e in events)
    final = events[-1].checkpoint
    assert final.score is not None
