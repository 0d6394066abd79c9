"""The state of a training: what changes while it runs, and how it is kept and restored."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import pooled_intensity, windows_of
from napari_volseg.data.labeled import identified
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint, config_from_json
from napari_volseg.models.evidence import Evidence
from napari_volseg.sparse.hold_out import block_grid
from napari_volseg.sparse.pool import build_pool, check_cases
from napari_volseg.training.events import Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.annotation import Case, LabelClass
    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool


@dataclass(eq=False)
class Run:
    """What changes while a training runs.

    Attributes
    ----------
    module, averaged : nn.Module
        The network that is trained, and the running average of its weights.
    optimizer : torch optimizer or None
        None between stages.
    stage : int
        Index of the current stage; the number of stages when all is done.
    step, stage_step : int
        Steps done, in all and in this stage.
    seconds, scoring_seconds : float
        Time spent: in all, and of that on scoring.
    stage_began : float
        What ``seconds`` was when the current stage took its first step.
    scored : int
        How often the held-out voxels were looked at.
    scores : list of float
        Mean foreground IoU on them since the labels last changed, oldest first.
    best : Score or None
        Of these.
    best_weights : mapping of str to tensor
        The averaged weights with that score, on the CPU: the newest of those that did best.
    belief : Belief
        What to make of the network's opinions: as the best score says, or the last best one
        before the labels changed.
    batch_size : int
        Patches a step, where memory ran out with more; else 0.
    recompute : bool
        Whether steps compute features twice rather than keep them.
    extended : float
        Seconds that were added to the budget because labels changed, less those that were
        taken from it because held-out voxels no longer improved.
    begun : int
        Steps that were done when the stages last began anew, because a class came.
    settled : bool
        Whether they no longer improved; the end is near then.
    """

    module: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    stage: int = 0
    step: int = 0
    stage_step: int = 0
    seconds: float = 0.0
    stage_began: float = 0.0
    scoring_seconds: float = 0.0
    scored: int = 0
    scores: list[float] = field(default_factory=list)
    best: Score | None = None
    best_weights: Mapping[str, Tensor] = field(default_factory=dict)
    belief: Belief = field(default_factory=Belief)
    batch_size: int = 0
    recompute: bool = False
    extended: float = 0.0
    settled: bool = False
    begun: int = 0


COUNTERS = (
    "stage",
    "step",
    "stage_step",
    "seconds",
    "stage_began",
    "scoring_seconds",
    "scored",
    "scores",
    "batch_size",
    "recompute",
    "extended",
    "settled",
    "begun",
)


def fingerprint(cases: Sequence[Case], config: TrainingConfig) -> str:
    """Identify a training: equal for the same labels, volumes' names and config."""
    digest = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True, default=list).encode())
    for case in cases:
        digest.update(case.volume.name.encode())
        digest.update(repr(case.annotation.class_ids).encode())
        digest.update(identified(case.annotation.labels))
        if case.proposals is not None and config.proposal_weight:
            digest.update(identified(case.proposals))
    return digest.hexdigest()


def merged_classes(cases: Sequence[Case], class_ids: Sequence[int]) -> tuple[LabelClass, ...]:
    """Return each class as the first case that knows it names and colors it."""
    known: dict[int, LabelClass] = {}
    for case in cases:
        for label_class in case.annotation.classes:
            known.setdefault(label_class.id, label_class)
    return tuple(known[i] for i in class_ids)


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy weights to the CPU, apart from the network that goes on changing."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}


def snapshot(
    run: Run,
    cases: Sequence[Case],
    config: TrainingConfig,
    architecture: AnyArchitecture,
    model_config: Any,
    pool: Pool,
) -> Checkpoint:
    """Make a checkpoint of a run, with all that resuming needs."""
    state = {f"module.{k}": v for k, v in copied(run.module.state_dict()).items()}
    state |= {f"averaged.{k}": v for k, v in copied(run.averaged.state_dict()).items()}
    if run.optimizer is not None:
        for index, values in run.optimizer.state_dict()["state"].items():
            tensors = {k: torch.as_tensor(v) for k, v in values.items() if v is not None}
            state |= {f"optimizer.{index}.{k}": v for k, v in copied(tensors).items()}
    for number, case in enumerate(pool.cases):
        state[f"blocks.{number}"] = torch.tensor(case.blocks.use)
    progress: dict[str, Any] = {name: getattr(run, name) for name in COUNTERS}
    progress["scores"] = list(run.scores)
    progress["counts"] = list(pool.counts)
    progress["fingerprint"] = fingerprint(cases, config)
    progress["best"] = asdict(run.best) if run.best else None
    return Checkpoint(
        model=architecture.name,
        config=asdict(model_config),
        training=config.to_json(),
        channels=cases[0].volume.channels,
        classes=merged_classes(cases, pool.class_ids),
        spacing=cases[0].volume.spacing,
        unit=cases[0].volume.unit,
        intensity=pooled_intensity([case.intensity for case in pool.cases]),
        step=run.step,
        seconds=run.seconds,
        score=run.best.mean_foreground_iou if run.best else None,
        iou=run.best.iou if run.best else (None,) * pool.n_classes,
        belief=run.belief,
        weights=run.best_weights or copied(run.averaged.state_dict()),
        state=state,
        progress=progress,
        evidence=run.best.evidence if run.best else Evidence(),
    )


def resumed_pool(
    checkpoint: Checkpoint,
    cases: Sequence[Case],
    config: TrainingConfig,
    device: torch.device,
    goes_on: bool,
) -> Pool:
    """Build the pool of a training that begins with a model, or goes on where that was taken.

    Parameters
    ----------
    goes_on : bool
        See ``continues``: it sees gray values as before then, whatever was painted meanwhile.

    Raises
    ------
    InputError
        If the cases do not fit the model, or there is nothing to learn from.
    """
    check_cases(cases)
    check_resume(checkpoint, cases, config)
    windows = windows_of(checkpoint.intensity) if goes_on else ()
    return build_pool(cases, config, device, block_uses(checkpoint, cases), windows)


def check_resume(checkpoint: Checkpoint, cases: Sequence[Case], config: TrainingConfig) -> None:
    """Refuse to go on from a model that does not fit.

    Raises
    ------
    InputError
        For another architecture or another number of channels.
    """
    if checkpoint.model != config.model:
        raise InputError(
            f"the model to go on from is a {checkpoint.model}, not a {config.model}; choose "
            "that architecture, or start afresh"
        )
    if checkpoint.channels != cases[0].volume.channels:
        raise InputError(
            f"{cases[0].volume.name}: {cases[0].volume.channels} channels, but the model to go "
            f"on from was trained on {checkpoint.channels}; start afresh"
        )


def continues(checkpoint: Checkpoint, cases: Sequence[Case], config: TrainingConfig) -> bool:
    """Whether a checkpoint is a moment of this very training, or its end."""
    return checkpoint.progress.get("fingerprint") == fingerprint(cases, config)


def block_uses(checkpoint: Checkpoint, cases: Sequence[Case]) -> list[NDArray[np.int8]]:
    """Return for each case which blocks were held out.

    A training that goes on from a network must not be judged by what that has seen. None if
    it was of other volumes, as far as their shapes tell.
    """
    keys = [key for key in checkpoint.state if key.startswith("blocks.")]
    uses = [checkpoint.state[f"blocks.{number}"].numpy() for number in range(len(keys))]
    grids = [block_grid(case.volume.shape, case.volume.spacing)[1] for case in cases]
    return uses if [use.shape for use in uses] == grids else []


def forget_scores(run: Run) -> None:
    """Judge anew: what was scored before were other voxels."""
    run.scores, run.best, run.best_weights, run.settled = [], None, {}, False


def restore(run: Run, checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """Put a run back to where its checkpoint was taken.

    Returns
    -------
    mapping of parameter index to optimizer state
        For the optimizer of the current stage, once it is built.
    """
    parts: dict[str, dict[str, Tensor]] = {"module": {}, "averaged": {}, "optimizer": {}}
    for key, tensor in checkpoint.state.items():
        part, _, name = key.partition(".")
        if part in parts:
            parts[part][name] = tensor
    run.module.load_state_dict(parts["module"])
    run.averaged.load_state_dict(parts["averaged"])
    for name in COUNTERS:
        # A file of an earlier version knows fewer.
        setattr(run, name, checkpoint.progress.get(name, getattr(run, name)))
    run.scores = list(run.scores)
    run.belief = checkpoint.belief
    if best := checkpoint.progress["best"]:
        kept = {"belief": checkpoint.belief, "evidence": checkpoint.evidence}
        run.best = Score(**best | {"iou": tuple(best["iou"])} | kept)
        run.best_weights = checkpoint.weights
    optimizer: dict[str, dict[str, Tensor]] = {}
    for key, tensor in parts["optimizer"].items():
        index, _, name = key.partition(".")
        optimizer.setdefault(index, {})[name] = tensor
    return optimizer


def load_optimizer(run: Run, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give the optimizer of the current stage the state that ``restore`` returned."""
    assert run.optimizer is not None
    whole = run.optimizer.state_dict()
    whole["state"] = {int(index): dict(values) for index, values in state.items()}
    run.optimizer.load_state_dict(whole)


@torch.no_grad()
def start_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    before: Sequence[int],
    class_ids: Sequence[int],
) -> None:
    """Start from the weights of a trained network, also if classes came or went since.

    Parameters
    ----------
    before, class_ids : sequence of int
        The classes of the weights, and those of the module.

    Tensors of the same shape are taken over. Where one axis has grown or shrunk by the
    number of classes, its last entries belong to the classes, in order: those of the
    classes that both know are taken over, and all entries before them. Where two classes
    share one entry, it is the second one's. The rest stays as it was initialized.
    """
    own = module.state_dict()
    for name, tensor in weights.items():
        target = own[name]
        if target.shape == tensor.shape:
            target.copy_(tensor)
            continue
        (axis,) = [a for a in range(target.ndim) if target.shape[a] != tensor.shape[a]]
        after, known = list(class_ids), list(before)
        if target.shape[axis] - tensor.shape[axis] != len(after) - len(known):
            after, known = (ids[1:] if len(ids) == 2 else ids for ids in (after, known))
        common = target.shape[axis] - len(after)
        shared = [i for i in after if i in known]
        new = [*range(common), *(common + after.index(i) for i in shared)]
        old = [*range(common), *(common + known.index(i) for i in shared)]
        kept = tensor.index_select(axis, torch.tensor(old)).to(target.device)
        target.index_copy_(axis, torch.tensor(new, device=target.device), kept)


def add_classes(
    run: Run, module: nn.Module, before: Sequence[int], class_ids: Sequence[int]
) -> None:
    """Go on with a network that has outputs for classes that came; the stages begin anew.

    What was learned stays. The new outputs are as they were initialized, and the first stage is
    the one that brings an answer soonest.

    Parameters
    ----------
    module : nn.Module
        Fresh, on the device.
    before, class_ids : sequence of int
        The classes so far, and now.
    """
    averaged = deepcopy(module)
    start_weights(module, run.module.state_dict(), before, class_ids)
    start_weights(averaged, run.averaged.state_dict(), before, class_ids)
    run.module, run.averaged = module, averaged
    if run.belief.shift:
        known = dict(zip(before, run.belief.shift, strict=True))
        run.belief = replace(run.belief, shift=tuple(known.get(i, 0.0) for i in class_ids))
    run.optimizer, run.stage, run.stage_step = None, 0, 0
    run.stage_began, run.begun = run.seconds, run.step


def forget_statistics(module: nn.Module) -> None:
    """Let batch normalization that averages over all batches begin anew: the paint is another.

    Where a training goes on from a model, most batches were of earlier paint. What is learned now
    fits the batches of now, and is less right with the statistics of both.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d) and part.momentum is None:
            part.reset_running_stats()


def resumed_config(architecture: AnyArchitecture, checkpoint: Checkpoint) -> Any:
    """Return the network settings of a checkpoint, so that its weights fit."""
    return config_from_json(architecture.config, checkpoint.config)
