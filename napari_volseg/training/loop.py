"""The training loop: a generator that runs any architecture's stages within a budget."""

from __future__ import annotations

import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_volseg.data.annotation import Case
from napari_volseg.inference.device import (
    describe_device,
    memory_in_use,
    pick_device,
    pick_precision,
)
from napari_volseg.inference.predict import predict_region
from napari_volseg.models.registry import get_architecture
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.proposals import with_proposals
from napari_volseg.training.budget import Budget, plan_budget
from napari_volseg.training.events import (
    Command,
    Message,
    NewLabels,
    Preview,
    PreviewRequest,
    Progress,
    Score,
)
from napari_volseg.training.held_out import most_read_in, score_held_out
from napari_volseg.training.labels import Material, take_labels
from napari_volseg.training.memory import batched, step_down
from napari_volseg.training.plan_memory import plan_memory
from napari_volseg.training.priority import lower_thread_priority
from napari_volseg.training.processes import (
    anywhere,
    average_gradients,
    failing_together,
    of_the_first,
    process_number,
)
from napari_volseg.training.recompute import frugal
from napari_volseg.training.run import (
    Run,
    add_classes,
    continues,
    copied,
    forget_scores,
    forget_statistics,
    load_optimizer,
    restore,
    resumed_config,
    resumed_pool,
    snapshot,
    start_weights,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_volseg.data.tiles import Region
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.sparse.stage import Stage
    from napari_volseg.training.plan_memory import MemoryPlan

MAX_GRADIENT_NORM = 10.0


def train(
    cases: Case | Sequence[Case],
    config: TrainingConfig | None = None,
    *,
    resume: Checkpoint | None = None,
) -> Generator[Progress, Message | None, None]:
    """Train an architecture on sparsely labeled volumes.

    Yields before the first step, while a stage prepares, after each step, and at the
    end; the last event carries the final checkpoint. Time in which the caller holds the
    generator (a pause) does not count. ``send(Command.STOP)`` answers with a last event,
    whose checkpoint predicts and can be resumed. ``send(PreviewRequest(region))`` is
    answered by the next event (see there), and takes of the training nothing but time.
    ``send(NewLabels(boxes))`` changes what it learns from.

    Parameters
    ----------
    cases : Case or sequence of Case
        What to train on; none of it is changed.
    config : TrainingConfig, optional
    resume : Checkpoint, optional
        Where to go on: an unfinished training of the same cases and config is continued
        as if it had never stopped; otherwise its weights are where a new training starts,
        which holds out the same blocks.

    Raises
    ------
    InputError
        If the cases, the config or the checkpoint do not fit; before the first event.
    """
    lower_thread_priority()
    config = config or TrainingConfig()
    cases = (cases,) if isinstance(cases, Case) else tuple(cases)
    device = pick_device(config.device)
    architecture = get_architecture(config.model)
    goes_on = resume is not None and continues(resume, cases, config)
    if resume is None:
        pool = build_pool(cases, config, device)
        model_config = architecture.configure(config, cases, device)
    else:
        pool = resumed_pool(resume, cases, config, device, goes_on)
        model_config = resumed_config(architecture, resume)
    material = Material(cases, pool)
    volumes = [case.volume for case in cases]
    plan = of_the_first(
        plan_memory(architecture, model_config, config, volumes, pool.n_classes, device)
    )
    model_config = plan.model_config

    def build() -> nn.Module:
        channels, n_classes = cases[0].volume.channels, material.pool.n_classes
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            made: nn.Module = architecture.build(model_config, channels, n_classes)
        return made.to(device)

    module = build()
    run = Run(module, deepcopy(module), batch_size=plan.batch_size, recompute=plan.recompute)
    learned = with_proposals(pool, cases, config)

    def make_stages() -> tuple[Stage[Any], ...]:
        made = architecture.stages(model_config, batched(config, run), learned)
        return tuple(frugal(stage) for stage in made) if run.recompute else made

    stages = make_stages()
    optimizer_state = None
    warm = False
    if resume is not None and goes_on and resume.progress["stage"] < len(stages):
        optimizer_state = restore(run, resume)
        run.batch_size = plan.batch_size or run.batch_size
        run.recompute = plan.recompute or run.recompute
        stages = make_stages()
    elif resume is not None:
        warm = True
        start_weights(run.module, resume.weights, resume.class_ids, pool.class_ids)
        run.averaged.load_state_dict(run.module.state_dict())
    budget = plan_budget(config, stages, run.begun)

    def preview(region: Region) -> Preview:
        began = time.perf_counter()
        run.averaged.eval()
        first = material.pool.cases[0]
        labels = predict_region(
            run.averaged,
            model_config,
            architecture,
            first.volume,
            first.intensity,
            device,
            material.pool.class_ids,
            run.belief,
            region,
        )
        seconds = time.perf_counter() - began
        run.seconds += seconds
        return Preview(region, labels, seconds)

    asked: PreviewRequest | None = None
    told: list[NewLabels] = []
    taken: NewLabels | None = None
    note = plan.smaller

    def tell(
        loss: float | None, score: Score | None, keep: bool, memory: MemoryPlan | None = None
    ) -> Generator[Progress, Message | None, bool]:
        """Yield an event, with the preview that was asked for; return whether to stop."""
        nonlocal asked, taken, note
        shown = None
        if asked is not None and (run.step > 0 or warm):
            shown, asked = preview(asked.region), None
        checkpoint = None
        if keep:
            checkpoint = snapshot(
                run, material.cases, config, architecture, model_config, material.pool
            )
        heard = yield replace(
            progress_of(run, budget, stage, device),
            loss=loss,
            score=score,
            checkpoint=checkpoint,
            note=note,
            # What went on from a trained network is more than its pixel classifier.
            instant=stage.instant and not warm,
            preview=shown,
            labels=taken,
            memory=memory,
        )
        taken, note = None, ""
        if isinstance(heard, PreviewRequest):
            asked = heard
        elif isinstance(heard, NewLabels):
            told.append(heard)
        run.seconds, run.scoring_seconds = of_the_first((run.seconds, run.scoring_seconds))
        return anywhere(heard is Command.STOP)

    loss = None
    end_spent_stages(run, budget)
    finished = run.stage == len(stages)
    stage = stages[min(run.stage, len(stages) - 1)]
    prepared: Stage[Any] | None = None
    stop = yield from tell(None, run.best, keep=finished, memory=plan)
    while not finished:
        if stop:
            note = "stopped"
            yield from tell(loss, None, keep=True)
            return
        began = time.perf_counter()
        if told:
            taken = told.pop(0)
            before = material.pool.class_ids
            changed, note = take_labels(material, taken, config, run.step)
            if changed:
                forget_scores(run)
                learned = with_proposals(material.pool, material.cases, config)
                if material.pool.class_ids != before:
                    warm = warm or (run.stage > 0 and not stage.instant)
                    add_classes(run, build(), before, material.pool.class_ids)
                stages = make_stages()
                budget = plan_budget(config, stages, run.begun)
                budget.renew(run)
                # So few steps may be left that one of the stages gets none.
                end_spent_stages(run, budget)
                if run.optimizer is not None and stages[run.stage].instant:
                    forget_statistics(run.module)
        stage = stages[run.stage]
        try:
            if stage is not prepared:
                for _ in stage.prepare(run.module):
                    run.seconds += time.perf_counter() - began
                    if (yield from tell(None, None, keep=False)):
                        note = "stopped"
                        yield from tell(None, None, keep=True)
                        return
                    began = time.perf_counter()
                prepared = stage
            if run.optimizer is None:
                begin_stage(run, stage)
                if optimizer_state:
                    load_optimizer(run, optimizer_state)
                    optimizer_state = None
            loss = take_step(run, stage, config, budget, device)
        except (MemoryError, RuntimeError) as error:
            model_config, said = step_down(error, run, config, model_config, device)
            note = "; ".join(filter(None, (note, said)))
            stages = make_stages()
            run.seconds += time.perf_counter() - began
            continue
        run.seconds = of_the_first(run.seconds + time.perf_counter() - began)
        if stage.schedule(budget.stage_fraction(run), run.scores) == 0:
            end_stage(run)
        end_spent_stages(run, budget)
        finished = run.stage == len(stages)
        score = None
        if finished or budget.score_due(run):
            began = time.perf_counter()
            judged = replace(material.pool, counts=learned.counts)
            seen = (run.averaged, model_config, architecture, judged)
            most = most_read_in(config, device)
            score = of_the_first(score_held_out(*seen, most, stage.look))
            keep_best(run, score)
            spent = of_the_first(time.perf_counter() - began)
            run.scoring_seconds += spent
            run.seconds += spent
            if score is not None and not finished:
                budget.settle(run, score.standard_error)
        stop = yield from tell(loss, score, keep=finished or score is not None)


def progress_of(run: Run, budget: Budget, stage: Stage[Any], device: torch.device) -> Progress:
    """Tell how far a run is; what is special about an event is filled in by its training."""
    return Progress(
        step=run.step,
        fraction=budget.fraction(run),
        seconds=run.seconds,
        seconds_left=budget.seconds_left(run),
        steps_per_second=run.step / run.seconds if run.seconds else 0.0,
        loss=None,
        stage=stage.name,
        device=describe_device(device),
        memory_bytes=memory_in_use(device),
        settled=run.settled,
    )


def begin_stage(run: Run, stage: Stage[Any]) -> None:
    """Let the stage's parameters move and no others, and build its optimizer."""
    for parameter in run.module.parameters():
        parameter.requires_grad_(False)
    moving = list(stage.parameters(run.module))
    for parameter in moving:
        parameter.requires_grad_(True)
    if run.stage_step == 0:
        run.stage_began = run.seconds
        if stage.instant:
            forget_statistics(run.module)
    run.optimizer = stage.optimizer(moving)
    for group in run.optimizer.param_groups:
        group["peak_lr"] = group["lr"]


def end_stage(run: Run) -> None:
    """Leave a stage."""
    run.stage += 1
    run.stage_step = 0
    run.stage_began = run.seconds
    run.optimizer = None


def end_spent_stages(run: Run, budget: Budget) -> None:
    """Leave the stages that have nothing left to spend."""
    while budget.ended(run):
        end_stage(run)


def take_step(
    run: Run, stage: Stage[Any], config: TrainingConfig, budget: Budget, device: torch.device
) -> float:
    """Sample, forward, backward, update, average; return the loss.

    Every random number of a step derives from the seed and the step's number, so that
    a resumed training repeats an uninterrupted one without keeping generator states.
    """
    assert run.optimizer is not None
    factor = stage.schedule(budget.stage_fraction(run), run.scores)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    # Of each process its own, in the lower 32 bits: a CPU's generator sees no others.
    seed = (config.seed * 1_000_003 + run.step + process_number() * 97_654_321) % 2**63
    with failing_together():
        batch = stage.sample(torch.Generator().manual_seed(seed))
        run.module.train()
        run.optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with autocast(config, device):
                loss = stage.loss(run.module, batch, run.stage_step)
            loss.backward()  # type: ignore[no-untyped-call]
    moving = [p for group in run.optimizer.param_groups for p in group["params"]]
    average_gradients(run.module, moving)
    norm = nn.utils.clip_grad_norm_(moving, MAX_GRADIENT_NORM)
    # A single bad batch must not ruin the weights: its update is left out.
    if torch.isfinite(norm):
        run.optimizer.step()
    run.step += 1
    run.stage_step += 1
    average(run, config.averaging)
    return float(loss.detach())


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast | nullcontext[None]:
    """Mixed precision where the device gains by it: bfloat16 needs no loss scaling."""
    if pick_precision(config.precision, device) == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@torch.no_grad()
def average(run: Run, decay: float) -> None:
    """Move the averaged weights towards the current ones, faster in the first steps."""
    keep = min(decay, (1 + run.step) / (10 + run.step))
    current = run.module.state_dict()
    for name, value in run.averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - keep)
        else:
            value.copy_(current[name])


def keep_best(run: Run, score: Score | None) -> None:
    """Remember the averaged weights if no earlier ones did better on held-out voxels.

    Where few voxels are held out, a difference of twice the standard error is chance; then
    the newer weights are kept, which have learned and been averaged for longer.
    """
    if score is None:
        return
    run.scored += 1
    run.scores.append(score.mean_foreground_iou)
    if score.mean_foreground_iou >= max(run.scores) - 2 * score.standard_error:
        run.best, run.belief = score, score.belief
        run.best_weights = copied(run.averaged.state_dict())
