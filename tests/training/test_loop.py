from __future__ import annotations

from dataclasses import asdict, replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_volseg.data import intensity
from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import load_model, save_model
from napari_volseg.sparse import pool
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.stage import Stage, warmup_cosine
from napari_volseg.training import loop
from napari_volseg.training.budget import Budget, plan_budget
from napari_volseg.training.events import Command, Score
from napari_volseg.training.held_out import score_of
from napari_volseg.training.loop import keep_best, train
from napari_volseg.training.run import Run

SHAPE = (12, 24, 24)
QUICK = {
    "channels": 4, "filter_scales": (1.0, 2.0), "learned_filters": False, "patches": ((8, 16, 16),),
}  # fmt: skip
CONFIG = TrainingConfig(steps=12, device="cpu", options=QUICK, held_out=0.2)


def make_case(seed=0, ids=(1, 2), name="blobs", shape=SHAPE) -> Case:
    random = np.random.default_rng(seed)
    _, y, x = np.indices(shape)
    center = shape[1] // 2
    inside = (y - center) ** 2 + (x - center) ** 2 < 60
    truth = np.where(inside, ids[-1], 1).astype(np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[4], labels[:, 12], labels[:, :, 10] = truth[4], truth[:, 12], truth[:, :, 10]
    image = (truth > 1) * 60 + random.normal(100, 20, shape)
    return Case(Volume(image[None].astype(np.float32), name=name), Annotation(labels))


def last(events):
    return list(events)[-1]


def same_weights(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_learns_a_dense_mask_from_three_slices():
    case = make_case()
    final = last(train(case, replace(CONFIG, steps=60)))
    labels = predict_volume(final.checkpoint, case.volume, device="cpu")
    _, y, x = np.indices(SHAPE)
    truth = (y - 12) ** 2 + (x - 12) ** 2 < 60
    unseen = case.annotation.labels == 0
    found = labels == 2
    iou = (found & truth & unseen).sum() / ((found | truth) & unseen).sum()
    assert iou > 0.8


def test_events_tell_what_happens(plain):
    events = plain
    assert (events[0].step, events[0].loss, events[0].checkpoint) == (0, None, None)
    preparing = [e for e in events if e.loss is None]
    taken = [e for e in events if e.loss is not None]
    assert len(preparing) > 2 and {e.step for e in preparing} == {0, 2, 10}
    assert [e.step for e in taken] == list(range(1, 13))
    assert events[-1].fraction == 1 and events[-1].seconds_left == 0
    assert events[-1].checkpoint.step == 12
    pixels, network = ["first pixels"] * 2 + ["pixels"] * 4, ["context"] * 4 + ["second look"] * 2
    assert [e.stage for e in taken] == pixels + network
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions)
    assert all(e.score is not None for e in events if e.checkpoint)
    assert events[-1].memory_bytes > 0 and "CPU" in events[-1].device


def test_the_kept_weights_are_no_worse_than_the_best_beyond_chance():
    events = list(train(make_case(), replace(CONFIG, steps=40)))
    scores = [e.score for e in events if e.score]
    kept = next(s for s in scores if s.mean_foreground_iou == events[-1].checkpoint.score)
    assert events[-1].checkpoint.iou == kept.iou
    best = max(s.mean_foreground_iou for s in scores)
    assert kept.mean_foreground_iou >= best - 2 * kept.standard_error


def test_the_newest_weights_are_kept_unless_held_out_voxels_tell_them_from_the_best():
    run = Run(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    kept = []
    for number, iou in enumerate((0.8, 0.79, 0.77, 0.785, 0.83, 0.8)):
        run.averaged.weight.data.fill_(number)
        keep_best(run, Score((None, iou), iou, standard_error=0.01))
        kept.append((int(run.best_weights["weight"]), run.best.mean_foreground_iou))
    assert kept == [(0, 0.8), (1, 0.79), (1, 0.79), (3, 0.785), (4, 0.83), (4, 0.83)]


@pytest.mark.parametrize("stop_at", [3, 5, 9])
def test_resumed_equals_uninterrupted(trained, stop_at, tmp_path):
    case, whole = make_case(), trained
    running = train(case, CONFIG)
    for event in running:
        if event.step == stop_at:
            stopped = running.send(Command.STOP)
            break
    assert stopped.note == "stopped" and stopped.checkpoint.step == stop_at
    assert list(running) == []
    save_model(stopped.checkpoint, tmp_path / "half.volseg")
    resumed = list(train(case, CONFIG, resume=load_model(tmp_path / "half.volseg")))
    assert resumed[0].step == stop_at
    assert same_weights(resumed[-1].checkpoint.weights, whole.weights)
    assert resumed[-1].checkpoint.progress["scores"] == whole.progress["scores"]


def test_a_stopped_training_predicts():
    case = make_case()
    running = train(case, CONFIG)
    next(running)
    stopped = running.send(Command.STOP)
    assert predict_volume(stopped.checkpoint, case.volume, device="cpu").shape == SHAPE


def test_stop_is_answered_while_a_stage_prepares(trained):
    case = make_case()
    running = train(case, CONFIG)
    next(running)
    preparing = next(running)
    assert (preparing.step, preparing.loss) == (0, None)
    stopped = running.send(Command.STOP)
    assert stopped.note == "stopped" and stopped.step == 0
    resumed = last(train(case, CONFIG, resume=stopped.checkpoint)).checkpoint
    assert same_weights(resumed.weights, trained.weights)


def test_what_preparing_takes_is_shared_among_the_stages():
    """A long preparation shortens every stage and takes none of them away."""
    budget = Budget((0, 0), 100.0, (0.1, 0.9))
    run = Run(torch.nn.Identity(), torch.nn.Identity(), stage_began=40.0)
    run.seconds = 43.0
    assert budget.stage_fraction(run) == pytest.approx(0.5)
    run.seconds = 46.0
    assert budget.ended(run)
    assert budget.fraction(run) == pytest.approx(0.46)


def test_warm_start_takes_the_weights_over_and_counts_anew(trained):
    case, first = make_case(), trained
    labels = case.annotation.labels.copy()
    labels[8] = np.where(labels[4] == 0, 1, labels[4])
    warm = train(Case(case.volume, Annotation(labels)), CONFIG, resume=first)
    assert next(warm).step == 0
    stopped = warm.send(Command.STOP)
    assert same_weights(stopped.checkpoint.weights, first.weights)


def test_going_on_keeps_what_was_learned_but_not_the_statistics_of_earlier_paint(trained):
    case, first = make_case(), trained
    bright = np.asarray(case.volume.image).copy()
    bright[:, :, 12:] += 200
    other = replace(case, volume=replace(case.volume, image=bright))

    def start(resume):
        """Take two steps, and return what was learned by then."""
        run = train(other, replace(CONFIG, steps=20), resume=resume)
        while next(run).step < 2:
            pass
        state = run.send(Command.STOP).checkpoint.state
        return {k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")}

    warm, afresh = start(first), start(None)
    for opinion in ("placed", "near"):
        name = f"pixels.{opinion}.normalize.running_var"
        torch.testing.assert_close(warm[name], afresh[name])
        name = f"pixels.{opinion}.layers.0.weight"
        assert torch.dist(warm[name], first.weights[name]) < torch.dist(warm[name], afresh[name])


def test_warm_start_with_a_new_class_keeps_the_known_ones(trained):
    case, first = make_case(), trained
    labels = case.annotation.labels.copy()
    labels[4, :3] = 5
    grown = Case(case.volume, Annotation(labels))
    warm = train(grown, CONFIG, resume=first)
    next(warm)
    started = warm.send(Command.STOP).checkpoint
    assert [c.id for c in started.classes] == [1, 2, 5]
    for name in ("classify.bias", "pixels.placed.layers.4.weight"):
        assert torch.equal(started.weights[name][:2], first.weights[name])
    name = "down.0.0.weight"
    assert torch.equal(started.weights[name], first.weights[name])
    assert first.weights["classify.bias"].any()


def test_warm_start_where_two_classes_share_one_output():
    config = TrainingConfig(model="unet2d", device="cpu", steps=2, options={"channels": 2})
    case = make_case()
    first = last(train(case, config)).checkpoint
    labels = case.annotation.labels.copy()
    labels[4, :3] = 5
    warm = train(Case(case.volume, Annotation(labels)), config, resume=first)
    next(warm)
    grown = warm.send(Command.STOP).checkpoint
    assert torch.equal(grown.weights["classify.bias"][1:2], first.weights["classify.bias"])
    assert len(grown.weights["classify.bias"]) == 3
    warm = train(case, config, resume=grown)
    next(warm)
    back = warm.send(Command.STOP).checkpoint
    assert same_weights(back.weights, first.weights)


def test_going_on_from_another_kind_of_model_is_refused(trained):
    case, checkpoint = make_case(), trained
    two_channels = Case(
        Volume(np.concatenate([case.volume.image] * 2), name="two"), case.annotation
    )
    with pytest.raises(InputError, match="two: 2 channels, but the model to go on from"):
        next(train(two_channels, CONFIG, resume=checkpoint))
    with pytest.raises(InputError, match="is a elsewhere, not a unet3d"):
        next(train(case, CONFIG, resume=replace(checkpoint, model="elsewhere")))


def test_several_volumes_train_one_model():
    cases = [make_case(0, name="one"), make_case(1, ids=(1, 3), name="two")]
    checkpoint = last(train(cases, CONFIG)).checkpoint
    assert [c.id for c in checkpoint.classes] == [1, 2, 3]


def test_a_training_by_time_ends_and_pauses_do_not_count(monkeypatch):
    clock = count(0.0, 0.02)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    running = train(make_case(), replace(CONFIG, steps=0, minutes=0.02))
    next(running)
    for _ in range(75):  # A pause of 1.5 s, longer than the training is to be.
        next(clock)
    after_pause = next(running)
    assert 0 < after_pause.seconds < 0.2
    events = list(running)
    assert events[-1].fraction == 1 and 1.2 <= events[-1].seconds < 1.5
    assert events[-1].step > 5


def test_paper_settings_run_with_valid_convolutions_and_sgd():
    small = {
        "channels": 2, "pooling": ((2, 2, 2),), "kernels": ((3, 3, 3),) * 2,
        "patches": ((4, 8, 8),), "tile": (8, 8, 8),
    }  # fmt: skip
    config = replace(CONFIG, preset="paper", options=small, optimizer="sgd", steps=4, dice_weight=0)
    case = make_case()
    checkpoint = last(train(case, config)).checkpoint
    assert predict_volume(checkpoint, case.volume, device="cpu").shape == SHAPE


def test_bad_input_is_refused_before_the_first_event():
    case = make_case()
    empty = Case(case.volume, Annotation(np.zeros(SHAPE, np.uint8)))
    with pytest.raises(InputError, match="nothing is painted"):
        next(train(empty, CONFIG))


def test_score_by_hand():
    score = score_of(np.array([[50, 10, 0], [5, 35, 0], [0, 0, 0]]))
    assert score.iou == (50 / 65, 35 / 50, None)
    assert score.mean_foreground_iou == 35 / 50
    assert score.standard_error == pytest.approx((0.7 * 0.3 / 50) ** 0.5)
    assert score_of(np.zeros((2, 2), np.int64)) is None


def test_a_checkpoint_has_the_belief_in_its_weights(trained):
    checkpoint = trained
    assert asdict(checkpoint.belief) == checkpoint.progress["best"]["belief"]
    assert asdict(checkpoint.evidence) == checkpoint.progress["best"]["evidence"]
    assert checkpoint.evidence.near is not None and checkpoint.evidence.reach > 0
    trust = checkpoint.belief.trust
    assert len(trust) == 5, "in the network, both of the classifier, both of the second look"
    assert trust[3] == pytest.approx(trust[4]), "its halves are judged by the same"
    assert len(checkpoint.belief.shift) == len(checkpoint.classes)
    unknown = last(train(make_case(), replace(CONFIG, held_out=0))).checkpoint
    assert unknown.belief == Belief()


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_as_many_steps_are_taken_as_were_asked_for(steps):
    assert last(train(make_case(), replace(CONFIG, steps=steps))).step == steps


def test_budget_is_shared_among_stages():
    budget = Budget(steps=(25, 75), seconds=0, shares=(0.25, 0.75))
    module = torch.nn.Identity()
    run = Run(module, module, stage=1, stage_step=30, step=55, seconds=11)
    assert budget.stage_fraction(run) == pytest.approx(0.4)
    assert budget.fraction(run) == pytest.approx(0.25 + 0.75 * 0.4)
    assert budget.seconds_left(run) == pytest.approx(0.45 * 100 * 11 / 55)
    timed = plan_budget(TrainingConfig(minutes=2), ())
    assert (timed.steps, timed.seconds) == ((), 120)


def limited(most_steps: int) -> Stage:
    return Stage("any", sample=None, loss=None, optimizer=None, most_steps=most_steps)


def test_a_stage_ends_at_its_limit_or_when_its_time_is_up():
    budget = plan_budget(TrainingConfig(minutes=1), (limited(40), limited(0)))
    module = torch.nn.Identity()
    run = Run(module, module, stage_step=10, seconds=3)
    assert budget.stage_fraction(run) == pytest.approx(10 / 40)
    run.seconds = 15  # Half of its half of the minute: time runs faster than steps.
    assert budget.stage_fraction(run) == pytest.approx(0.5)
    run.stage_step = 40
    assert budget.ended(run)
    after = Run(module, module, stage=1, stage_began=15, seconds=37.5)
    assert budget.stage_fraction(after) == pytest.approx(0.5)  # All that is left is its own.


def test_new_labels_get_half_of_the_time_again_and_the_learning_rate_follows():
    budget = plan_budget(TrainingConfig(minutes=10), (limited(40), limited(0)))
    module = torch.nn.Identity()
    run = Run(module, module, stage=1, seconds=540, scored=14)
    early = Run(module, module, stage=1, seconds=200, scored=5)
    budget.renew(early)
    assert (early.extended, early.scored) == (0, 5)
    late = budget.stage_fraction(run)
    budget.renew(run)
    assert budget.seconds_left(run) == pytest.approx(300)
    assert budget.stage_fraction(run) == pytest.approx(540 / 840) and late == pytest.approx(0.9)
    assert warmup_cosine(budget.stage_fraction(run), []) > 5 * warmup_cosine(late, [])
    run.seconds += 840 / 16
    assert budget.score_due(run)
    by_steps = plan_budget(TrainingConfig(steps=10), (limited(0),))
    run = Run(module, module, step=9, stage_step=9, seconds=9)
    by_steps.renew(run)
    assert by_steps.stage_fraction(run) == pytest.approx(0.9)


def test_a_long_preparation_takes_no_steps_from_a_stage_of_few():
    budget = plan_budget(TrainingConfig(minutes=1), (limited(40), limited(0)))
    module = torch.nn.Identity()
    run = Run(module, module, stage_step=10, stage_began=70, seconds=71)
    assert budget.stage_fraction(run) == pytest.approx(10 / 40)
    at_the_end = plan_budget(TrainingConfig(minutes=1), (limited(0), limited(40)))
    run = Run(module, module, stage=1, stage_step=10, stage_began=70, seconds=71)
    assert at_the_end.stage_fraction(run) == pytest.approx(10 / 40)
    run.seconds = 100  # Its half of the minute, though, it has no longer than any other.
    assert at_the_end.ended(run)


def test_steps_that_a_limit_leaves_go_to_the_next_stages():
    stages = (limited(10), limited(0), limited(0))
    assert plan_budget(TrainingConfig(steps=100), stages).steps == (10, 45, 45)


@pytest.mark.parametrize("cached", [True, False])
def test_values_that_are_not_finite_are_met_where_nobody_looked_before(monkeypatch, cached):
    if not cached:
        monkeypatch.setattr(pool, "CACHE_BYTES", 0)
    monkeypatch.setattr(intensity, "SAMPLED_PLANES", 2)
    case = make_case(name="holes")
    case.volume.image[0, 5] = np.nan
    with pytest.raises(InputError, match=r"holes: channel 0 .* in xy slice 5"):
        list(train(case, TrainingConfig(steps=20, device="cpu")))
