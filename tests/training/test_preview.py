"""What a running training says of a region, and what asking for it must not change."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.inference.predict import predict_volume
from napari_volseg.training import loop
from napari_volseg.training.budget import Budget
from napari_volseg.training.events import Command, PreviewRequest
from napari_volseg.training.loop import train
from napari_volseg.training.run import Run
from tests.training.test_loop import CONFIG, SHAPE, make_case, same_weights

XY = (slice(5, 6), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
XZ = (slice(0, SHAPE[0]), slice(9, 10), slice(0, SHAPE[2]))


def train_asking(case, asked, config=CONFIG, **settings):
    """Train, and ask for a region at events by their position."""
    running = train(case, config, **settings)
    events = [next(running)]
    while events[-1].fraction < 1:
        request = asked.get(len(events) - 1)
        events.append(running.send(PreviewRequest(request) if request else None))
    return events


def test_previews_change_neither_weights_nor_scores(plain):
    case = make_case()
    first = [event.step for event in plain].index(1)
    asked = train_asking(case, {0: XY, first: XZ, first + 4: XY, first + 5: XZ})
    # The first was asked for when nothing was learned: after the first step it comes.
    answered = [i - first for i, event in enumerate(asked) if event.preview]
    assert answered == [0, 1, 5, 6]
    assert [e.score for e in asked] == [e.score for e in plain]
    one, two = plain[-1].checkpoint, asked[-1].checkpoint
    assert same_weights(one.weights, two.weights) and same_weights(one.state, two.state)


def test_a_preview_is_what_the_model_of_that_moment_predicts():
    config = replace(CONFIG, held_out=0.0)
    cases = [make_case(ids=(1, 5)), make_case(seed=1, ids=(1, 5), name="other")]
    running = train(cases, config)
    while next(running).step < 8:
        pass
    preview = running.send(PreviewRequest(XZ)).preview
    checkpoint = running.send(Command.STOP).checkpoint
    expected = predict_volume(checkpoint, cases[0].volume, device="cpu")[XZ]
    np.testing.assert_array_equal(preview.labels, expected)
    assert preview.labels.dtype == np.uint8 and set(np.unique(expected)) == {1, 5}
    assert preview.region == XZ


def test_the_time_of_a_preview_counts():
    running = train(make_case(), CONFIG)
    while (before := next(running)).step < 8:
        pass
    after = running.send(PreviewRequest(XY))
    assert 0 < after.preview.seconds < after.seconds - before.seconds


def test_a_preview_leaves_out_a_second_look_that_is_not_judged_yet(monkeypatch):
    clock = count(0.0, 0.02)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    config = replace(CONFIG, steps=0, minutes=0.02)
    running = train(make_case(), config)
    asked = [next(running)]
    with suppress(StopIteration):
        while True:
            asked.append(running.send(PreviewRequest(XY)))
    learning = [e for e in asked if e.stage == "second look" and e.score is None and e.loss]
    assert len(learning) > 2 and all(e.preview for e in learning)


def test_what_the_pixel_classifier_came_to_is_scored():
    events = list(train(make_case(), replace(CONFIG, steps=40)))
    pixels = [e for e in events if e.instant]
    assert {e.stage for e in pixels} == {"first pixels", "pixels"}
    assert pixels[-1].step == 20 and pixels[-1].score is not None
    assert {8, 20} <= {e.step for e in pixels if e.score}, "a first answer, and what it came to"
    assert not any(e.instant for e in events if e.stage == "context")


def test_what_goes_on_from_a_trained_network_is_no_instant_answer(trained):
    case, first = make_case(), trained
    labels = case.annotation.labels.copy()
    labels[8] = 1
    warm = train_asking(
        Case(case.volume, Annotation(labels)), {0: XY}, replace(CONFIG, steps=2), resume=first
    )
    assert not any(e.instant for e in warm)
    # It has learned before: no step is waited for.
    assert warm[1].preview is not None and warm[1].step == 0


@pytest.mark.parametrize(("spent", "due"), [(5.0, True), (7.0, False)])
def test_the_end_of_a_stage_is_scored_unless_that_takes_long(spent, due):
    module = torch.nn.Identity()
    budget = Budget((0, 0), 60.0, (0.1, 0.9))
    run = Run(module, module, stage=1, seconds=8.0, scoring_seconds=spent, scored=9)
    assert budget.score_due(run) is due
    run.stage_step = 1
    assert not budget.score_due(run)
