"""The class of every object from a few examples: training, and then the rest of them."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import measure_intensity
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.inference.device import pick_device
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint, config_from_json
from napari_volseg.models.registry import get_classifier
from napari_volseg.review.object_crops import crop_object, gather_examples
from napari_volseg.review.objects import check_shape
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.object_config import ObjectConfig
from napari_volseg.training.budget import plan_budget
from napari_volseg.training.events import Command, Progress
from napari_volseg.training.loop import begin_stage, progress_of, take_step
from napari_volseg.training.priority import lower_thread_priority
from napari_volseg.training.run import Run, copied

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.sparse.crops import Examples
    from napari_volseg.sparse.stage import Stage

AT_ONCE = 64
"""Objects that are classified together."""

STATISTICS_BATCHES = 4
"""Batches that the normalization statistics of a trained network are measured on."""


@dataclass(frozen=True)
class ClassifiedObject:
    """An object with its class: one row of the result.

    Attributes
    ----------
    object : int
        Its id.
    class_id : int
    probability : float
        What the network gives that class, 0 to 1.
    given : bool
        Whether the class is the user's example, not the network's choice.
    voxels : int
    center : (z, y, x)
        Center of mass in the volume's unit, from the middle of its first voxel.
    """

    object: int
    class_id: int
    probability: float
    given: bool
    voxels: int
    center: tuple[float, float, float]


def train_on_objects(
    volume: Volume,
    objects: Objects,
    given: Mapping[int, int],
    classes: Sequence[LabelClass],
    config: ObjectConfig,
) -> Generator[Progress, Command | None, None]:
    """Train a classifier on objects of a volume; as ``train_classifier``.

    Parameters
    ----------
    given : mapping of object id to class id
        The examples.
    classes : sequence of LabelClass
        What an object can be.

    Raises
    ------
    InputError
        If the config, the examples or the volume do not fit; before the first event.
    """
    network = get_classifier(config.model)
    side = network.side(configure(config, pick_device(config.device)))
    examples = gather_examples(volume, objects, given, classes, config, side)
    yield from train_classifier(examples, config)


def configure(config: ObjectConfig, device: torch.device) -> Any:
    """Return the network's configuration that a training on a device asks for.

    Raises
    ------
    InputError
        For an unknown network, preset or option.
    """
    network = get_classifier(config.model)
    return network.settings(config.preset, config.options, lambda: network.auto(device))


def train_classifier(
    examples: Examples, config: ObjectConfig
) -> Generator[Progress, Command | None, None]:
    """Train a classifier on crops.

    Yields before the first step, after each step, and at the end, with the trained
    network as the last event's checkpoint. Time in which the caller holds the generator
    does not count. ``send(Command.STOP)`` answers with a last event.

    Raises
    ------
    InputError
        If the config does not fit, or the crops are not of the size that it asks for.
    """
    lower_thread_priority()
    device = pick_device(config.device)
    network, settings = get_classifier(config.model), configure(config, device)
    side = network.side(settings)
    channels, *sides = examples.crops.shape[1:]
    if sides != [side] * 3:
        raise InputError(f"crops of {sides} voxels; {config.model} asks for {side} along each edge")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        module = network.build(settings, channels, len(examples.classes)).to(device)
    examples = replace(examples, crops=examples.crops.to(device), target=examples.target.to(device))
    stage = network.stage(settings, config, examples)
    training = TrainingConfig(
        model=config.model, seed=config.seed, steps=config.steps, minutes=config.minutes
    )
    run, budget = Run(module, deepcopy(module)), plan_budget(training, (stage,))

    def event(loss: float | None, keep: bool, note: str = "") -> Progress:
        checkpoint = snapshot(run, stage, examples, config, settings) if keep else None
        return replace(
            progress_of(run, budget, stage, device), loss=loss, checkpoint=checkpoint, note=note
        )

    begin_stage(run, stage)
    loss = None
    command = yield event(None, keep=False)
    while command is not Command.STOP:
        began = time.perf_counter()
        loss = take_step(run, stage, training, budget, device)
        run.seconds += time.perf_counter() - began
        finished = budget.ended(run)
        command = yield event(loss, keep=finished)
        if finished:
            return
    yield event(loss, keep=True, note="stopped")


def snapshot(
    run: Run, stage: Stage[Any], examples: Examples, config: ObjectConfig, settings: Any
) -> Checkpoint:
    """Make a checkpoint that classifies.

    The normalization statistics are measured afresh for the averaged weights: after a
    few dozen steps, running averages still hold much of what they were initialized with.
    """
    generator = torch.Generator().manual_seed(config.seed)
    batches = (stage.sample(generator).crops for _ in range(STATISTICS_BATCHES))
    update_bn(batches, run.averaged)
    return Checkpoint(
        model=config.model,
        config=asdict(settings),
        training=config.to_json(),
        channels=examples.crops.shape[1],
        classes=examples.classes,
        spacing=examples.spacing,
        unit=examples.unit,
        intensity=examples.intensity,
        step=run.step,
        seconds=run.seconds,
        score=None,
        iou=(None,) * len(examples.classes),
        belief=Belief(),
        weights=copied(run.averaged.state_dict()),
    )


@torch.inference_mode()
def crop_probabilities(module: nn.Module, crops: Tensor) -> Tensor:
    """Class probabilities (N, K) of crops (N, C, side, side, side), ``AT_ONCE`` at a time."""
    return torch.cat([module(part).float().softmax(1) for part in torch.split(crops, AT_ONCE)])


def classify_objects(
    checkpoint: Checkpoint,
    volume: Volume,
    objects: Objects,
    given: Mapping[int, int] | None = None,
    *,
    device: str = "auto",
) -> Iterator[tuple[ClassifiedObject, ...]]:
    """Classify every object, some at a time, by id. Closing the generator cancels.

    Parameters
    ----------
    checkpoint : Checkpoint
        The last event's of a training.
    given : mapping of object id to class id, optional
        Examples: they keep their class, whatever the network says.
    device : str
        "auto", "cpu", "cuda", "mps", ...

    Raises
    ------
    InputError
        If the checkpoint labels voxels, or volume, objects and checkpoint do not fit.
    """
    given = given or {}
    network = get_classifier(checkpoint.model)
    check_shape(volume, objects)
    config: ObjectConfig = config_from_json(ObjectConfig, checkpoint.training)
    channels = (config.sees != "mask") * volume.channels + (config.sees != "image")
    if channels != checkpoint.channels:
        raise InputError(
            f"{volume.name}: crops of {channels} channels, but the model was trained on "
            f"{checkpoint.channels}; choose an image like the one it was trained on"
        )
    chosen = pick_device(device)
    module, settings = checkpoint.module(chosen)
    side, intensity = network.side(settings), measure_intensity(volume)
    ids = checkpoint.class_ids
    for first in range(0, len(objects.found), AT_ONCE):
        found = objects.found[first : first + AT_ONCE]
        crops = [crop_object(volume, objects, o.id, config, side, intensity) for o in found]
        rows = crop_probabilities(module, torch.stack(crops).to(chosen)).cpu()
        classified = []
        for one, row in zip(found, rows, strict=True):
            class_id = given.get(one.id, ids[int(row.argmax())])
            z, y, x = (c * s for c, s in zip(one.center, volume.spacing, strict=True))
            probability = float(row[ids.index(class_id)])
            classified.append(
                ClassifiedObject(
                    one.id, class_id, probability, one.id in given, one.voxels, (z, y, x)
                )
            )
        yield tuple(classified)


def class_labels(objects: Objects, rows: Iterable[ClassifiedObject]) -> AnyLabels:
    """Return the class of each voxel's object, uint8 or uint16 (Z, Y, X); elsewhere background.

    Of objects in ``SparseLabels`` it is such too, and 0 where no object is near.
    """
    table = np.full(objects.last_id + 1, BACKGROUND, np.uint16)
    for row in rows:
        table[row.object] = row.class_id
    if table.max() <= np.iinfo(np.uint8).max:
        table = table.astype(np.uint8)
    if isinstance(objects.labels, SparseLabels):
        return objects.labels.map(lambda labels: table[labels], table.dtype)
    return table[objects.labels]
