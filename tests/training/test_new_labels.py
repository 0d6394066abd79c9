"""Labels that are sent to a running training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case, LabelClass
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.checkpoint import load_model, save_model
from napari_volseg.models.registry import architectures
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.training.budget import Budget
from napari_volseg.training.events import Command, NewLabels, PreviewRequest
from napari_volseg.training.loop import train
from napari_volseg.training.run import block_uses, continues
from tests.models.test_registry import odd_case
from tests.training.test_loop import CONFIG, SHAPE, last, make_case, same_weights

if TYPE_CHECKING:
    from napari_volseg.models.checkpoint import Checkpoint

WHOLE = tuple(slice(0, n) for n in SHAPE)
PLANE = (slice(8, 9), slice(0, 24), slice(0, 24))


def repainted(case: Case) -> np.ndarray:
    """The labels with one more slice, some erased, and some of another class."""
    labels = case.annotation.labels.copy()
    _, y, x = np.indices(SHAPE)
    labels[8] = np.where((y - 12) ** 2 + (x - 12) ** 2 < 60, 2, 1)[8]
    labels[4, :6] = 0
    labels[:, 12, 3] = 2
    return labels


def with_labels(case: Case, labels: np.ndarray) -> Case:
    return Case(case.volume, Annotation(labels))


def changes(labels: np.ndarray, *regions) -> NewLabels:
    return NewLabels(tuple((region, labels[region].copy()) for region in regions or [WHOLE]))


def train_telling(case, told, config=CONFIG, **settings):
    """Train, and send labels after the step of that number; with STOP, end after it."""
    running = train(case, config, **settings)
    events = [next(running)]
    for event in running:
        events.append(event)
        news = told.get(event.step) if event.loss is not None else None
        if news is not None:
            events.append(running.send(news))
            if news is Command.STOP:
                break
    return events


class Corrected:
    """A training that is told of other labels after its step 4, and what it was given."""

    def __init__(self):
        self.case, self.step = make_case(), 4
        self.before = self.case.annotation.labels.copy()
        self.news = changes(repainted(self.case))
        self.events = train_telling(self.case, {self.step: self.news})
        self.checkpoint = self.events[-1].checkpoint


@pytest.fixture(scope="module")
def corrected() -> Corrected:
    return Corrected()


def test_the_next_event_learns_from_them(plain, corrected):
    step, news, events = corrected.step, corrected.news, corrected.events
    first = next(n for n, event in enumerate(events) if event.labels is not None)
    assert events[first].labels is news and events[first - 1].step == step
    assert [e.labels for e in events].count(None) == len(events) - 1
    assert [e.loss for e in events[:first]] == [e.loss for e in plain[:first]]
    assert events[-1].loss != plain[-1].loss and events[-1].step == plain[-1].step
    assert not same_weights(events[-1].checkpoint.weights, plain[-1].checkpoint.weights)


def test_the_budget_is_renewed_when_labels_change(monkeypatch):
    renewed = []
    monkeypatch.setattr(Budget, "renew", lambda budget, run: renewed.append(run.step))
    case = make_case()
    told = {2: changes(case.annotation.labels), 4: changes(repainted(case))}
    train_telling(case, told)
    assert renewed == [4]


@pytest.mark.parametrize(("told_at", "batches"), [(4, 2), (6, 4), (8, 4)])
def test_statistics_of_earlier_paint_are_forgotten_while_others_can_be_learned(told_at, batches):
    """The first two and four steps are the instant answer's; after them none would take their
    place."""
    case = make_case()
    final = train_telling(case, {told_at: changes(repainted(case))})[-1]
    name = "module.pixels.placed.normalize.num_batches_tracked"
    assert final.checkpoint.state[name] == batches


def test_a_corrected_region_is_predicted_as_it_was_corrected():
    """All that was painted swaps its classes in mid-training; the network follows."""
    case = make_case()
    labels = case.annotation.labels
    swapped = np.select([labels == 1, labels == 2], [2, 1], 0).astype(np.uint8)
    config = replace(CONFIG, steps=100)
    final = train_telling(case, {10: changes(swapped)}, config)[-1].checkpoint
    found = predict_volume(final, case.volume, device="cpu")
    assert (found == swapped)[swapped > 0].mean() > 0.9


@pytest.mark.parametrize("told_at", [2, 8])
def test_stopped_and_resumed_equals_uninterrupted(told_at, tmp_path):
    whole_case = make_case()
    half_painted = whole_case.annotation.labels.copy()
    half_painted[:, :, 12:] = 0
    case, now = (
        with_labels(whole_case, half_painted),
        with_labels(whole_case, repainted(whole_case)),
    )
    news = changes(now.annotation.labels)
    whole = train_telling(case, {told_at: news})[-1].checkpoint
    half = train_telling(case, {told_at: news, 10: Command.STOP})[-1].checkpoint
    (use,) = block_uses(half, [now])
    at_once = build_pool([now], CONFIG, torch.device("cpu")).cases[0].blocks.use
    assert not np.array_equal(use, at_once), "what is held out shows what was painted when"
    save_model(half, tmp_path / "half.volseg")
    resumed = list(train(now, CONFIG, resume=load_model(tmp_path / "half.volseg")))
    assert resumed[0].step == 10
    assert same_weights(resumed[-1].checkpoint.weights, whole.weights)
    assert same_weights(resumed[-1].checkpoint.state, whole.state)
    assert resumed[-1].checkpoint.score == whole.score


def test_the_checkpoint_is_one_of_the_labels_it_has_learned_from(corrected):
    case, checkpoint = corrected.case, corrected.checkpoint
    now = with_labels(case, repainted(case))
    assert continues(checkpoint, [now], CONFIG) and not continues(checkpoint, [case], CONFIG)
    # In the same event as Stop, nothing was learned from them.
    running = train(case, CONFIG)
    next(running)
    stopped = running.send(Command.STOP).checkpoint
    assert continues(stopped, [case], CONFIG)


def test_boxes_that_follow_each_other_come_to_the_same_as_all_of_the_labels(corrected):
    case = make_case()
    labels = repainted(case)
    erased = (slice(4, 5), slice(0, 6), slice(0, 24))
    line = (slice(0, 12), slice(12, 13), slice(3, 4))
    told = {corrected.step: changes(labels, PLANE, erased, line)}
    boxes = train_telling(case, told)[-1].checkpoint
    assert same_weights(corrected.checkpoint.weights, boxes.weights)


def test_labels_as_they_were_change_nothing(plain):
    case = make_case()
    before = case.annotation.labels.copy()
    told = train_telling(case, {4: changes(case.annotation.labels), 8: changes(before)})
    kept = plain[-1].checkpoint
    assert same_weights(told[-1].checkpoint.weights, kept.weights)
    assert told[-1].checkpoint.progress == kept.progress | {
        name: told[-1].checkpoint.progress[name]
        for name in ("seconds", "scoring_seconds", "stage_began")
    }


def test_the_labels_that_were_given_are_not_changed(corrected):
    np.testing.assert_array_equal(corrected.case.annotation.labels, corrected.before)


def test_scores_and_best_weights_begin_anew():
    case = make_case()
    config = replace(CONFIG, steps=40)
    events = train_telling(case, {20: changes(repainted(case))}, config)
    scores = [e.score.mean_foreground_iou for e in events if e.score and e.step > 20]
    assert events[-1].checkpoint.progress["scores"] == scores
    # They are looked at as often as ever, not once for each score that was forgotten.
    assert 4 < len(scores) < 10
    running = train(case, config)
    while next(running).step < 20:
        pass
    running.send(changes(repainted(case)))
    stopped = running.send(Command.STOP).checkpoint
    assert stopped.score is None
    assert stopped.belief.trust, "what is known of the network's opinions is not forgotten"


def with_a_third(case: Case) -> np.ndarray:
    """The labels with a part of the background painted as another class, between the others."""
    labels = case.annotation.labels.copy()
    labels[:, :, :6] = np.where(labels[:, :, :6] == 1, 5, labels[:, :, :6])
    return labels


def corner_case() -> Case:
    """Classes 1 and 9, and a side where the image is darker: to be painted as class 5."""
    case = make_case(ids=(1, 9))
    image = case.volume.image.copy()
    image[..., :6] -= 120
    return Case(replace(case.volume, image=image), case.annotation)


@pytest.mark.parametrize("settings", [{"steps": 100}, {"steps": 0, "minutes": 0.1}], ids=str)
def test_a_new_class_is_learned_at_once(settings):
    case = corner_case()
    labels = with_a_third(case)
    news = NewLabels(((WHOLE, labels),), (LabelClass(5, "side", "#123456"),))
    config = replace(CONFIG, **settings)
    running = train(case, config)
    while next(running).step < 30:
        pass
    event = running.send(news)
    assert event.labels is news and event.note == ""
    assert event.stage == "first pixels", "the instant answer is trained anew"
    events = list(running)
    final = events[-1].checkpoint
    assert [(c.id, c.name) for c in final.classes][1:] == [(5, "side"), (9, "class 9")]
    assert events[-1].stage == "second look" and events[-1].fraction == 1
    if config.steps:
        assert events[-1].step == config.steps, "no more and no less are taken than asked for"
    else:
        assert events[-1].seconds - event.seconds > 0.45 * 60 * config.minutes
    scores = [e.score for e in events if e.score]
    assert scores and all(len(score.iou) == 3 for score in scores)
    found = predict_volume(final, case.volume, device="cpu")
    assert ((found == labels)[labels > 0]).mean() > 0.9
    assert (found[labels == 5] == 5).mean() > 0.9


def test_a_preview_shows_a_new_class():
    case = corner_case()
    running = train(case, replace(CONFIG, steps=160))
    while next(running).step < 30:
        pass
    running.send(changes(with_a_third(case)))
    while next(running).stage != "context":
        pass
    event = running.send(PreviewRequest(PLANE))
    while event.preview is None:
        event = next(running)
    assert set(np.unique(event.preview.labels)) == {1, 5, 9} and not event.instant


def test_what_was_learned_is_kept_when_a_class_comes():
    case, checkpoints = corner_case(), []
    for told in ({}, {30: changes(with_a_third(case))}):
        running = train_telling(case, {**told, 31: Command.STOP}, replace(CONFIG, steps=60))
        checkpoints.append(running[-1].checkpoint)
    before, after = checkpoints
    for name in ("down.0.0.weight", "classify.bias", "pixels.placed.layers.4.weight"):
        old, now = before.state[f"averaged.{name}"], after.state[f"averaged.{name}"]
        if len(now) > len(old):
            now = now[[0, 2]]
        # One step was taken since.
        assert torch.allclose(now, old, atol=0.02) and old.any()
    # Also by what was known of the network's opinions, before it is judged anew.
    assert after.score is None and len(after.belief.shift) == 3
    assert predict_volume(after, case.volume, device="cpu").shape == SHAPE


@pytest.fixture(scope="module")
def given_a_third() -> Checkpoint:
    """The end of a training of 24 steps that a third class came to after 3."""
    case, config = corner_case(), replace(CONFIG, steps=24)
    return train_telling(case, {3: changes(with_a_third(case))}, config)[-1].checkpoint


@pytest.mark.parametrize("stop_at", [4, 8, 20])
def test_stopped_and_resumed_after_a_class_came(given_a_third, stop_at):
    case, config, whole = corner_case(), replace(CONFIG, steps=24), given_a_third
    news = changes(with_a_third(case))
    now = with_labels(case, with_a_third(case))
    half = train_telling(case, {3: news, stop_at: Command.STOP}, config)[-1].checkpoint
    resumed = list(train(now, config, resume=half))
    assert resumed[0].step == stop_at and resumed[-1].step == 24
    assert same_weights(resumed[-1].checkpoint.weights, whole.weights)
    assert same_weights(resumed[-1].checkpoint.state, whole.state)


def test_a_class_of_a_large_number_and_one_that_came_and_went():
    case = make_case()
    labels = repainted(case).astype(np.uint16)
    labels[8, :3] = 300
    gone = np.where(labels == 300, 0, labels)
    final = train_telling(case, {4: changes(labels)})[-1].checkpoint
    assert [c.id for c in final.classes] == [1, 2, 300]
    both = NewLabels(((WHOLE, labels), (WHOLE, gone)))
    final = train_telling(case, {4: both})[-1].checkpoint
    assert [c.id for c in final.classes] == [1, 2]


def test_a_new_class_without_a_weight_is_left_out():
    case = make_case()
    labels = repainted(case)
    labels[8, :3] = 7
    config = replace(CONFIG, class_weights=(1, 2))
    events = train_telling(case, {4: changes(labels)}, config)
    (event,) = [e for e in events if e.labels is not None]
    said = "class 7 is new and left out; add to the class weights, and train again"
    assert event.note == said
    without = np.where(labels == 7, 0, labels)
    final = events[-1].checkpoint
    assert [c.id for c in final.classes] == [1, 2]
    assert continues(final, [with_labels(case, without)], config)
    assert not continues(final, [with_labels(case, labels)], config)


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_learns_a_new_class(name):
    case = odd_case()
    labels = case.annotation.labels.copy()
    half = (slice(0, 7), slice(0, 10), slice(0, 26))
    labels[half] = np.where(labels[half] > 0, 6, 0)
    config = TrainingConfig(model=name, device="cpu", steps=6, seed=3)
    events = train_telling(case, {2: NewLabels(((half, labels[half]),))}, config)
    final = events[-1].checkpoint
    assert events[-1].step == 6 and [c.id for c in final.classes] == [1, 2, 3, 6]
    assert predict_volume(final, case.volume, device="cpu").shape == case.volume.shape


def test_while_only_one_class_is_left_training_goes_on_with_what_was(plain):
    case = make_case()
    one = np.where(case.annotation.labels == 2, 0, case.annotation.labels)
    events = train_telling(case, {4: changes(one)})
    (event,) = [e for e in events if e.labels is not None]
    assert event.note.startswith("fewer than two classes are left to train on")
    assert same_weights(events[-1].checkpoint.weights, plain[-1].checkpoint.weights)
    # The erased voxels are not forgotten when another stroke comes.
    now = one.copy()
    now[PLANE] = repainted(case)[PLANE]
    events = train_telling(case, {4: changes(one), 6: changes(now, PLANE)})
    assert continues(events[-1].checkpoint, [with_labels(case, now)], CONFIG)


def test_what_does_not_fit_is_refused_and_training_goes_on(plain):
    """Of another shape than their region, outside of the volume, of another type."""
    case = make_case()
    good = (PLANE, repainted(case)[PLANE])
    outside = (slice(11, 13), slice(0, 24), slice(0, 24))
    told = {
        4: (PLANE, np.ones((1, 24, 23), np.uint8)),
        6: (outside, np.ones((2, 24, 24), np.uint8)),
        8: (PLANE, np.ones((1, 24, 24), np.float32)),
    }
    news = {step: NewLabels((good, bad)) for step, bad in told.items()}
    events = train_telling(case, news)
    refused = [e for e in events if e.labels is not None]
    assert [e.labels for e in refused] == list(news.values())
    for event in refused:
        assert event.note.startswith("blobs: new labels of shape (") and "left out" in event.note
    assert same_weights(events[-1].checkpoint.weights, plain[-1].checkpoint.weights)


def test_several_messages_are_taken_one_after_the_other():
    case = make_case()
    labels = repainted(case)
    rest = labels.copy()
    rest[PLANE] = 0
    running = train(case, CONFIG)
    next(running)
    # While the first stage prepares: they wait for it.
    running.send(changes(rest))
    running.send(changes(labels, PLANE))
    final = last(running).checkpoint
    assert continues(final, [with_labels(case, labels)], CONFIG)


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_sees_the_change_at_once(name):
    case = odd_case()
    labels = np.where(case.annotation.labels > 0, 4 - case.annotation.labels, 0).astype(np.uint8)
    # Losses are compared, not scores: nothing is held out.
    config = TrainingConfig(model=name, device="cpu", steps=6, seed=3, held_out=0.0)
    plain = {e.step: e.loss for e in train(case, config) if e.loss is not None}
    whole = tuple(slice(0, n) for n in labels.shape)
    events = train_telling(case, {4: NewLabels(((whole, labels),))}, config)
    told = {e.step: e.loss for e in events if e.loss is not None}
    assert told.keys() == plain.keys()
    assert [told[step] for step in range(1, 5)] == [plain[step] for step in range(1, 5)]
    assert told[5] != plain[5]


def test_a_finished_training_trains_on_and_is_judged_by_the_same_voxels(trained):
    case, first = make_case(), trained
    again = list(train(case, CONFIG, resume=first))[-1].checkpoint
    assert again.step == first.step > 0 and not same_weights(again.weights, first.weights)
    more = with_labels(case, repainted(case))
    corrected = list(train(more, CONFIG, resume=first))[-1].checkpoint
    (use,), (later,) = block_uses(first, [case]), block_uses(corrected, [more])
    np.testing.assert_array_equal(later[use > 0], use[use > 0])
    assert block_uses(first, [case, case]) == []
