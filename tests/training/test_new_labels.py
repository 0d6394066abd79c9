"""Labels that are sent to a running training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.checkpoint import load_model, save_model
from napari_volseg.models.registry import architectures
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.training.budget import Budget
from napari_volseg.training.events import Command, NewLabels
from napari_volseg.training.loop import train
from napari_volseg.training.run import block_uses, continues
from tests.models.test_registry import odd_case
from tests.training.test_loop import CONFIG, SHAPE, last, make_case, same_weights

WHOLE = tuple(slice(0, n) for n in SHAPE)
PLANE = (slice(8, 9), slice(0, 24), slice(0, 24))


@pytest.fixture(scope="module")
def plain() -> list:
    """The events of a training that is told nothing."""
    return list(train(make_case(), CONFIG))


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


def test_the_next_event_learns_from_them(plain):
    case, step = make_case(), 4
    news = changes(repainted(case))
    events = train_telling(case, {step: news})
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


def test_a_corrected_region_is_predicted_as_it_was_corrected():
    """All that was painted swaps its classes in mid-training; the network follows."""
    case = make_case()
    labels = case.annotation.labels
    swapped = np.select([labels == 1, labels == 2], [2, 1], 0).astype(np.uint8)
    config = replace(CONFIG, steps=160)
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


def test_the_checkpoint_is_one_of_the_labels_it_has_learned_from():
    case = make_case()
    now = with_labels(case, repainted(case))
    checkpoint = train_telling(case, {4: changes(repainted(case))})[-1].checkpoint
    assert continues(checkpoint, [now], CONFIG) and not continues(checkpoint, [case], CONFIG)
    # In the same event as Stop, nothing was learned from them.
    running = train(case, CONFIG)
    next(running)
    stopped = running.send(Command.STOP).checkpoint
    assert continues(stopped, [case], CONFIG)


def test_boxes_that_follow_each_other_come_to_the_same_as_all_of_the_labels():
    case = make_case()
    labels = repainted(case)
    erased = (slice(4, 5), slice(0, 6), slice(0, 24))
    line = (slice(0, 12), slice(12, 13), slice(3, 4))
    whole = train_telling(case, {4: changes(labels)})[-1].checkpoint
    boxes = train_telling(case, {4: changes(labels, PLANE, erased, line)})[-1].checkpoint
    assert same_weights(whole.weights, boxes.weights)


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


def test_the_labels_that_were_given_are_not_changed():
    case = make_case()
    before = case.annotation.labels.copy()
    train_telling(case, {4: changes(repainted(case))})
    np.testing.assert_array_equal(case.annotation.labels, before)


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


def test_a_new_class_is_left_to_the_next_training():
    case = make_case()
    labels = repainted(case)
    labels[8, :3] = 7
    events = train_telling(case, {4: changes(labels)})
    (event,) = [e for e in events if e.labels is not None]
    assert event.note == "class 7 is new: the next training learns it"
    without = np.where(labels == 7, 0, labels)
    final = events[-1].checkpoint
    assert [c.id for c in final.classes] == [1, 2]
    assert continues(final, [with_labels(case, without)], CONFIG)
    assert not continues(final, [with_labels(case, labels)], CONFIG)


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


@pytest.mark.parametrize(
    ("region", "values"),
    [
        (PLANE, np.ones((1, 24, 23), np.uint8)),
        ((slice(11, 13), slice(0, 24), slice(0, 24)), np.ones((2, 24, 24), np.uint8)),
        (PLANE, np.ones((1, 24, 24), np.float32)),
    ],
    ids=["shape", "outside", "type"],
)
def test_what_does_not_fit_is_refused_and_training_goes_on(plain, region, values):
    case = make_case()
    good = (PLANE, repainted(case)[PLANE])
    events = train_telling(case, {4: NewLabels((good, (region, values)))})
    (event,) = [e for e in events if e.labels is not None]
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
    config = TrainingConfig(model=name, device="cpu", steps=8, seed=3)
    plain = {e.step: e.loss for e in train(case, config) if e.loss is not None}
    whole = tuple(slice(0, n) for n in labels.shape)
    events = train_telling(case, {5: NewLabels(((whole, labels),))}, config)
    told = {e.step: e.loss for e in events if e.loss is not None}
    assert told.keys() == plain.keys()
    assert [told[step] for step in range(1, 6)] == [plain[step] for step in range(1, 6)]
    assert told[6] != plain[6]


def test_a_finished_training_trains_on_and_is_judged_by_the_same_voxels():
    case = make_case()
    first = list(train(case, CONFIG))[-1].checkpoint
    again = list(train(case, CONFIG, resume=first))[-1].checkpoint
    assert again.step == first.step > 0 and not same_weights(again.weights, first.weights)
    more = with_labels(case, repainted(case))
    corrected = list(train(more, CONFIG, resume=first))[-1].checkpoint
    (use,), (later,) = block_uses(first, [case]), block_uses(corrected, [more])
    np.testing.assert_array_equal(later[use > 0], use[use > 0])
    assert block_uses(first, [case, case]) == []
