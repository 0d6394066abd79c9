"""A training by time that ends once held-out voxels no longer improve."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_volseg.models.checkpoint import load_model, save_model
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.stage import Stage, warmup_cosine
from napari_volseg.training import loop
from napari_volseg.training.budget import CHANCE, LAST_PART, PATIENCE, RENEWED, SCORES, plan_budget
from napari_volseg.training.events import Command, Score
from napari_volseg.training.loop import train
from napari_volseg.training.run import Run, forget_scores
from tests.training.test_loop import CONFIG, make_case, same_weights
from tests.training.test_new_labels import changes, repainted

ERROR = 0.04
MINUTE = 60.0
LOOK = MINUTE / SCORES
PATIENT = TrainingConfig(minutes=MINUTE / 60, until_no_better=True)
STAGE = Stage("any", sample=None, loss=None, optimizer=None)


def new_run(**values) -> Run:
    return Run(torch.nn.Identity(), torch.nn.Identity(), **values)


def spend(run, scores, config=PATIENT, stages=(STAGE,)):
    """Spend a budget second by second, finding these scores at the looks; return the rates."""
    budget, rates = plan_budget(config, stages), []
    scores = iter(scores)
    while run.stage < len(stages):
        run.seconds += 0.5
        run.stage_step += 1
        rates.append(warmup_cosine(budget.stage_fraction(run), run.scores))
        if budget.ended(run):
            run.stage += 1
            run.stage_step, run.stage_began = 0, run.seconds
        elif budget.score_due(run):
            run.scored += 1
            run.scores.append(next(scores))
            budget.settle(run, ERROR)
    return rates


def rising(step):
    return (0.3 + step * n for n in count())


def noisy(level, spread, seed):
    random = np.random.default_rng(seed)
    return (level + random.uniform(-spread, spread) for _ in count())


@pytest.mark.parametrize("seed", range(5))
def test_what_no_longer_improves_ends_early_and_its_rate_falls_to_zero(seed):
    run = new_run()
    rates = spend(run, noisy(0.8, CHANCE * ERROR / 2, seed))
    settled_at = run.seconds / (1 + LAST_PART)
    assert run.settled and settled_at == pytest.approx((PATIENCE + 1) * LOOK, abs=1)
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    assert (np.diff(rates[int(np.argmax(rates)) :]) <= 0).all(), "it never rises again"
    # The steps with a small rate, which bring gains, are not left out.
    assert sum(rate < 0.3 for rate in rates[:-1]) >= 0.1 * len(rates)


@pytest.mark.parametrize(
    "scores",
    [
        rising(CHANCE * ERROR),
        noisy(0.0, 0.0, 0),
        (0.5 + 0.2 * (n > 2) + 0.1 * (n > 6) + 0.1 * (n > 10) for n in count()),
    ],
    ids=["rising", "nothing found", "now and then"],
)
def test_what_improves_takes_all_of_its_time(scores):
    run = new_run()
    spend(run, scores)
    assert not run.settled and run.seconds == pytest.approx(MINUTE, abs=0.6)


@pytest.mark.parametrize("seed", range(20))
def test_it_never_takes_longer_than_it_may(seed):
    random = np.random.default_rng(seed)
    scores = np.minimum(1, np.cumsum(random.exponential(random.uniform(0.001, 0.05), 40)))
    run = new_run()
    spend(run, scores + random.normal(0, CHANCE * ERROR, 40))
    assert (PATIENCE + 1) * LOOK < run.seconds <= MINUTE + 0.6
    assert run.settled == (run.extended < 0)


def test_without_being_asked_it_takes_all_of_its_time():
    for config in (TrainingConfig(minutes=1), TrainingConfig(steps=120, until_no_better=True)):
        run = new_run()
        spend(run, noisy(0.8, 0, 0), config)
        assert not run.settled and run.seconds == pytest.approx(MINUTE, abs=0.6)


def test_a_stage_that_one_of_few_steps_follows_ends_early_too():
    run = new_run()
    spend(run, noisy(0.8, 0, 0), stages=(STAGE, replace(STAGE, share=0.1, most_steps=3)))
    assert run.settled and run.stage == 2
    assert run.seconds < 0.75 * MINUTE


def test_a_stage_that_has_just_begun_is_not_judged_by_those_before():
    run = new_run()
    spend(run, noisy(0.8, 0, 0), stages=(replace(STAGE, share=0.4), replace(STAGE, share=0.6)))
    assert run.settled
    assert run.seconds / (1 + LAST_PART) >= 0.4 * MINUTE + PATIENCE * LOOK - 1


def test_patience_begins_anew_when_labels_change():
    run, budget = new_run(seconds=40.0, scores=[0.8] * 8, scored=8, stage_step=80), None
    budget = plan_budget(PATIENT, (STAGE,))
    budget.settle(run, ERROR)
    assert run.settled and budget.seconds_left(run) == pytest.approx(LAST_PART * 40)
    forget_scores(run)
    budget.renew(run)
    assert not run.settled and budget.seconds_left(run) == pytest.approx(RENEWED * MINUTE)
    spend(run, noisy(0.7, 0, 0))
    assert not run.settled and run.seconds == pytest.approx(40 + RENEWED * MINUTE, abs=1)


# In a training ------------------------------------------------------------------


@pytest.fixture
def flat(monkeypatch):
    """Every look finds the same, and every reading of the clock is some time later."""
    clock = count(0.0, 2**-7)  # as no rounding changes it
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    score = Score((0.9, 0.8), 0.8, ERROR)
    monkeypatch.setattr(loop, "score_held_out", lambda *_: score)
    quick = {**CONFIG.options, "filter_scales": ()}
    return replace(CONFIG, steps=0, minutes=0.02, until_no_better=True, options=quick)


def test_the_user_is_told_and_labels_that_change_start_it_anew(flat):
    case = make_case()
    events = list(train(case, flat))
    first = next(n for n, event in enumerate(events) if event.settled)
    assert events[first].score is not None and all(event.settled for event in events[first:])
    assert events[-1].checkpoint is not None and events[-1].seconds < 0.5 * 60 * flat.minutes
    assert events[first].seconds_left < 0.7 * events[first - 1].seconds_left
    running = train(case, flat)
    for event in running:
        if event.settled:
            break
    renewed = running.send(changes(repainted(case)))
    assert renewed.labels is not None and not renewed.settled
    assert renewed.seconds_left > 0.4 * 60 * flat.minutes


@pytest.mark.parametrize("settled", [False, True])
def test_resumed_equals_uninterrupted(flat, settled, tmp_path):
    case = make_case()
    whole = list(train(case, flat))
    stop_at = next(e.step for e in whole if e.settled) + 2 if settled else 3
    running = train(case, flat)
    event = next(running)
    while event.step < stop_at:
        event = next(running)
    half = running.send(Command.STOP)
    assert half.settled == settled
    save_model(half.checkpoint, tmp_path / "half.volseg")
    resumed = list(train(case, flat, resume=load_model(tmp_path / "half.volseg")))
    assert resumed[0].step == stop_at and resumed[0].settled == settled
    assert [e.step for e in resumed] == [e.step for e in whole if e.step >= stop_at]
    assert same_weights(resumed[-1].checkpoint.weights, whole[-1].checkpoint.weights)
